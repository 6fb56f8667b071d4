"""A report as a sequence of blocks, and the two ways to write it: Markdown with files beside it, or one HTML page.

Every text in a block is plain: nothing in it is markup in either form.
"""

import base64
import dataclasses
import html
import re
from collections.abc import Mapping, Sequence

from spct_jax.reporting import markdown


@dataclasses.dataclass(frozen=True)
class Heading:
    """A title, of level 1 to 4."""

    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Sentences."""

    text: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells below a header; the first column is left-aligned, the others, which are numbers, right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    own: int = 0
    """How many of the first rows are ours, and stand out."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """Names, and what is said of each."""

    rows: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A drawing: `svg` in the file `name`."""

    name: str
    svg: bytes
    caption: str


@dataclasses.dataclass(frozen=True)
class Text:
    """Somebody's text, shown as it is."""

    text: str
    title: str = ""


Block = Heading | Paragraph | Table | Facts | Picture | Text


def to_markdown(blocks: Sequence[Block]) -> str:
    """The report in Markdown; pictures are files beside it."""
    parts = []
    for block in blocks:
        match block:
            case Heading(text, level):
                parts.append(f"{'#' * level} {markdown.escape(text)}")
            case Paragraph(text):
                parts.append(markdown.escape(text))
            case Table(header, rows, own):
                parts.append(markdown.table(header, rows, own))
            case Facts(rows):
                parts.append(
                    "\n".join(f"- **{markdown.escape(name)}**: {markdown.escape(said)}" for name, said in rows.items())
                )
            case Picture(name, _, caption):
                parts.append(f"![{markdown.escape(caption)}]({name})")
            case Text(text, title):
                parts += [markdown.escape(title)] * bool(title) + [markdown.fence(text)]
    return "\n\n".join(parts) + "\n"


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """The report as one HTML page that asks for no other file: style and pictures are in it, and there is no script."""
    body = "\n".join(_html(block) for block in blocks)
    return _PAGE.format(title=_escape(title), style=_STYLE, body=body)


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_escape(text)}</p>"
        case Table(header, rows, own):
            head = "".join(f"<th>{_escape(cell)}</th>" for cell in header)
            cells = ["".join(f"<td>{_escape(cell)}</td>" for cell in row) for row in rows]
            lines = [f'<tr class="own">{line}</tr>' for line in cells[:own]] + [f"<tr>{line}</tr>" for line in cells[own:]]
            return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        case Facts(rows):
            pairs = "".join(f"<dt>{_escape(name)}</dt><dd>{_escape(said)}</dd>" for name, said in rows.items())
            return f"<dl>{pairs}</dl>"
        case Picture(_, svg, caption):
            source = base64.b64encode(svg).decode()
            return f'<figure><img src="data:image/svg+xml;base64,{source}" alt="{_escape(caption)}"></figure>'
        case Text(text, title):
            above = f"<p>{_escape(title)}</p>" if title else ""
            return f"{above}<pre>{_escape(text)}</pre>"


def _escape(text: object) -> str:
    # Control characters, other than the end of a line and the tab, have no place in a page.
    return html.escape(re.sub("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", "\ufffd", str(text).replace("\r\n", "\n")))


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
_STYLE = """
:root { color: #1c2733; background: #f4f5f7; font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
body { margin: 0; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 3rem 4rem; background: #fff; min-height: 100vh;
  box-sizing: border-box; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; padding-bottom: .3rem; border-bottom: 2px solid #0072b2; }
h3 { font-size: 1.02rem; margin: 1.9rem 0 .5rem; }
p { max-width: 46rem; margin: .6rem 0; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .75rem; text-align: right; border-bottom: 1px solid #e3e6ea; white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; border-bottom: 2px solid #9aa4b0; white-space: normal; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 9rem; }
tbody tr:hover { background: #f6f9fc; }
tr.own td { background: #eaf3fa; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .3rem 1.2rem; margin: 1rem 0; font-size: .92rem; }
dt { font-weight: 600; color: #4a5866; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1.2rem 0; }
img { max-width: 100%; height: auto; }
pre { background: #f6f7f9; border: 1px solid #e3e6ea; border-radius: 5px; padding: .8rem 1rem; margin: .5rem 0 1rem;
  font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
  max-height: 26rem; overflow-y: auto; }
@media (max-width: 50rem) { main { padding: 1.2rem; } }
@media print { main { max-width: none; padding: 0; } pre { max-height: none; } }
"""
