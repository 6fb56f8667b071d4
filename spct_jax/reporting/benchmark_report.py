"""The report on a benchmark, from its figures alone: `report.md` with pictures beside it, and `report.html` with all in one."""

from collections.abc import Mapping, Sequence
from typing import Any

from spct_jax.errors import InputError
from spct_jax.evaluation import measures
from spct_jax.evaluation.measures import GREEDY, SAMPLED
from spct_jax.evaluation.recorded import LARGEST
from spct_jax.reporting import benchmark_plots, document
from spct_jax.reporting.document import Block, Facts, Heading, Paragraph, Picture, Table, Text
from spct_jax.reporting.markdown import percent
from spct_jax.reporting.published import OVERALL, OVERALL_TABLE, PUBLISHED, Published
from spct_jax.storage import files
from spct_jax.storage.paths import Path

RULES = {
    "official": "what the benchmark's own code gives",
    "paper": "the SPCT paper's credit: a tie between t responses counts 1/t, and so does a verdict that cannot be read (t = n)",
    "strict": "only a response that beats all others counts",
}
_VOTES = {GREEDY: "greedy (temperature 0)", SAMPLED: "sampled"}
NAMES = ("figures.json", "report.md", "report.html")
"""Files that `write` writes besides pictures."""
MOST_BARS = 60
"""Subsets that one picture can hold."""


def write(directory: Path, figures: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> None:
    """Writes `figures.json`, `report.md`, its pictures and `report.html`.

    Args:
      directory: where.
      figures: those of `measures.compute`, with what `evaluate` adds: `benchmark`, `title`, `quantity` and `rules` of the
        benchmark, `about` (names and values of what was measured and how), `unjudged` and `skipped` (reasons and counts), and
        `beside` (`overall_column` of each benchmark whose figures go together).
      examples: verdicts to read, see `examples.choose`.
    """
    blocks = build(figures, examples)
    for block in blocks:
        if isinstance(block, Picture):
            files.write(directory / block.name, block.svg)
    files.write_json(directory / "figures.json", figures)
    files.write(directory / "report.md", document.to_markdown(blocks))
    files.write(directory / "report.html", document.to_html(f"{figures['title']}: report", blocks))


def build(figures: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> list[Block]:
    """The blocks of the report."""
    parts = [_opening(figures), _headline(figures), _scaling(figures), _published(figures), _overall(figures)]
    parts += [_aggregates(figures), _subsets(figures), _position(figures), _verdicts(examples)]
    return [block for part in parts for block in part]


def _opening(figures: Mapping) -> list[Block]:
    lost = [
        f"{count:,} {what}: {reason}."
        for what, reasons in (
            ("could not be shown to the judge and count as unread", figures["unjudged"]),
            ("rows of the data were left out", figures["skipped"]),
        )
        for reason, count in reasons.items()
    ]
    return [Heading(figures["title"], 1), Facts(figures["about"]), *map(Paragraph, [*lost, *nothing_read(figures)])]


def nothing_read(figures: Mapping[str, Any]) -> list[str]:
    """A sentence for every way of judging whose figures are of no vote at all."""
    return [
        f"{name}: none of {found['items']:,} items has a vote that could be read; its figures are what each rule gives then."
        for name, found in figures["measures"].items()
        if found["unread"] == found["items"]
    ]


def _headline(figures: Mapping) -> list[Block]:
    rows = []
    for name, found in figures["measures"].items():
        cells = [_shown(measures.headline(found, column), column != "strict") for column in RULES]
        rates = [percent(found[field]) for field in ("tie_rate", "malformed_rate", "truncated_rate")]
        rows.append([name, *cells, *rates, f"{found['unread']:,}"])
    aggregates = [name for found in figures["measures"].values() for name in found["table"]]
    header = ["judged by", *RULES, "ties", "malformed", "truncated", "items unread"]
    says = "In %, with 95 % bootstrap intervals over items; "
    if aggregates:
        says += f"shown is “{aggregates[0]}”, the first of the aggregates below, or the first that has such a figure."
    else:
        says += "of these items there are no such figures."
    rules = RULES | figures["rules"]
    if figures["chance"]:
        rules["paper"] += f"; a judge that guesses gets {percent(figures['chance'])}"
    meanings = {
        **{column: meaning for column, meaning in rules.items() if column in _columns(figures["measures"], "table")},
        "vote@k": "the sum of the first k votes",
        "meta@k/m": "the sum of the m among them that the meta reward model trusts most",
        "ties": "of items",
        "malformed": "of votes, for whatever reason they could not be read; truncated ones were cut at the limit of tokens",
    }
    title = Heading(benchmark_plots.capitalised(figures["quantity"]))
    return [title, Paragraph(says), Table(header, rows), Facts(meanings)]


def _scaling(figures: Mapping) -> list[Block]:
    lines = {name: {int(k): figure for k, figure in points.items()} for name, points in figures["by_k"].items()}
    if not lines:
        return []
    greedy = figures["measures"].get("greedy")
    level = measures.headline(greedy) if greedy else None
    quantity = figures["quantity"]
    picture = benchmark_plots.scaling(lines, level and level["value"], figures["chance"], quantity)
    ks = sorted({k for points in lines.values() for k in points})
    rows = [[str(k), *(_shown(points.get(k)) for points in lines.values())] for k in ks]
    return [
        Heading("By number of votes"),
        Picture("scaling.svg", picture, f"{benchmark_plots.capitalised(quantity)} by number of votes"),
        Table(["k", *lines], rows),
    ]


def _published(figures: Mapping) -> list[Block]:
    known = PUBLISHED.get(figures["benchmark"])
    if known is None:
        return []
    rows = []
    for name, found in figures["measures"].items():
        cells = [_lookup(found, *place) for place in known.places]
        if any(cell is not None for cell in cells):
            rows.append([f"ours: {name}", *(percent(cell and cell["value"]) for cell in cells)])
    rules = "”, “".join(dict.fromkeys(column for _, column in known.places))
    says = f"Ours are figures of the column “{rules}” of the tables here. {' '.join(known.notes)}"
    return [Heading("Beside published figures"), Paragraph(says), _table_with_published(rows, known)]


def overall_column(figures: Mapping[str, Any], where: str) -> dict[str, float]:
    """What the figures of a benchmark put into the paper's Table 2, for each way of judging that has it.

    Args:
      figures: the content of a `figures.json`.
      where: its name, for the message.

    Raises:
      InputError: it is none, or of a benchmark that is not in the table.
    """
    named = figures.get("benchmark")
    if not isinstance(named, str) or named not in OVERALL or not isinstance(figures.get("measures"), dict):
        raise InputError(f"{where}: holds no figures of {', '.join(OVERALL)}")
    try:
        cells = {name: _lookup(found, *PUBLISHED[named].places[-1]) for name, found in figures["measures"].items()}
        values = {name: cell["value"] for name, cell in cells.items() if cell is not None}
    except (AttributeError, KeyError, TypeError):
        values = {"": None}
    if not all(type(value) in (int, float) and abs(value) <= LARGEST for value in values.values()):
        raise InputError(f"{where}: not the figures of {named} as this command writes them")
    return {name: float(value) for name, value in values.items()}


def _overall(figures: Mapping) -> list[Block]:
    if not figures["beside"]:
        return []
    rows = []
    for name in dict.fromkeys(name for column in figures["beside"].values() for name in column):
        cells = [figures["beside"].get(benchmark, {}).get(name) for benchmark in OVERALL]
        overall = None if None in cells else sum(cells) / len(cells)
        rows.append([f"ours: {name}", *map(percent, (*cells, overall))])
    return [
        Heading("Overall"),
        Paragraph(f"Ours are figures of the column “paper”, as everywhere. {' '.join(OVERALL_TABLE.notes)}"),
        _table_with_published(rows, OVERALL_TABLE),
    ]


def _table_with_published(own: Sequence[Sequence[str]], known: Published) -> Table:
    theirs = [
        [name, *("–" if value is None else f"{value:.{known.digits}f}" for value in row)] for name, row in known.rows.items()
    ]
    return Table(["model, judged by", *known.columns], [*own, *theirs], len(own))


def _lookup(found: Mapping, place: str, column: str) -> Mapping | None:
    table = next((table for table in (found["table"], found["subsets"]) if place in table), {})
    return table.get(place, {}).get(column)


def _aggregates(figures: Mapping) -> list[Block]:
    found = figures["measures"]
    names = list(dict.fromkeys(name for one in found.values() for name in one["table"]))
    blocks: list[Block] = [Heading("Aggregates")]
    for column in _columns(found, "table"):
        rows = [[name, *(_shown(one["table"].get(name, {}).get(column), False) for one in found.values())] for name in names]
        rows = [row for row in rows if any(cell != "–" for cell in row[1:])]
        blocks += [Heading(column, 3), Table(["", *found], rows)]
    return blocks


def _subsets(figures: Mapping) -> list[Block]:
    found = figures["measures"]
    names = sorted({name for one in found.values() for name in one["subsets"]})
    if len(names) < 2:
        return []
    blocks: list[Block] = [Heading("By subset")]
    bars = {}
    for name in dict.fromkeys(["greedy" if "greedy" in found else next(iter(found)), list(found)[-1]]):
        values = {subset: found[name]["subsets"].get(subset, {}).get("paper") for subset in names}
        if len(names) <= MOST_BARS and all(values.values()):
            bars[name] = values
    if bars:
        blocks.append(Picture("subsets.svg", benchmark_plots.subsets(bars), "Accuracy by subset, the paper's credit"))
    for column in (name for name in RULES if name in _columns(found, "subsets")):
        rows = [[name, *(_shown(one["subsets"].get(name, {}).get(column), False) for one in found.values())] for name in names]
        blocks += [Heading(column, 3), Table(["", *found], rows)]
    for title, rate in (("ties", "tie_rate"), ("malformed", "malformed_rate"), ("truncated", "truncated_rate")):
        groups = next(iter(found.values()))["by_subset"]
        rows = [
            [f"{name} ({group['items']:,} items)", *(percent(one["by_subset"][name][rate]) for one in found.values())]
            for name, group in groups.items()
        ]
        if any(cell != percent(None) for row in rows for cell in row[1:]):
            blocks += [Heading(title, 3), Table(["", *found], rows)]
    return blocks


def _position(figures: Mapping) -> list[Block]:
    if not figures["position"]:
        return []
    says = (
        "How the order in which a prompt shows the responses moves the verdict. “changes with the order” is the chance that "
        "two votes on one item in different orders name different responses, “changes in one order” the same for two votes in "
        "the same order, where chance alone is at work; what the first has more is the order's doing. “consistent” is the "
        "share of items where the sums of the votes in each order name the same single response. The dashed lines below are a "
        "judge without bias."
    )
    header = ["votes", "items in several orders", "changes with the order, %", "changes in one order, %", "consistent, %"]
    rows, pictures = [], []
    for name, found in figures["position"].items():
        cells = [percent(found[field]) for field in ("changes_with_order", "changes_in_order", "consistent")]
        rows.append([_VOTES[name], f"{found['items']:,}", *cells])
        shares = {int(n): values for n, values in found["wins_by_position"].items() if len(values) <= 10}
        if shares:
            caption = f"How often the response at each position is named best, {_VOTES[name]}"
            pictures += [Heading(caption, 3), Picture(f"positions_{name}.svg", benchmark_plots.positions(shares), caption)]
    return [Heading("Position bias"), Paragraph(says), Table(header, rows), *pictures]


def _verdicts(examples: Sequence[Mapping[str, Any]]) -> list[Block]:
    if not examples:
        return []
    blocks: list[Block] = [Heading("Verdicts to read")]
    for example in examples:
        blocks += [Heading(f"{example['outcome']}: {example['id']}", 3), Paragraph(_summary(example))]
        if example.get("conversation"):
            blocks.append(Text("\n\n".join(f"[{role}]\n{text}" for role, text in example["conversation"]), "Conversation"))
        for number, text in enumerate(example.get("responses", ()), 1):
            blocks.append(Text(text, f"Response {number}{' (the right one)' if number - 1 == example['best'] else ''}"))
        if example.get("critique"):
            order = ", ".join(str(index + 1) for index in example["order"] or ())
            read = f"which read the responses in the order {order}" if order else "of each response by itself"
            blocks.append(Text(example["critique"], f"The first critique, {read}"))
    return blocks


def _summary(example: Mapping[str, Any]) -> str:
    said = f"Subset {example['subset']}. " if example["subset"] else ""
    said += f"{example['valid']} of {example['votes']} votes could be read."
    if example["totals"] is not None:
        said += f" Totals: {', '.join(f'response {i}: {total:.9g}' for i, total in enumerate(example['totals'], 1))}."
    return said if example["best"] is None else f"{said} The right one is response {example['best'] + 1}."


def _columns(found: Mapping[str, Mapping], part: str) -> list[str]:
    """The columns of all tables, those that mean the same everywhere first."""
    present = dict.fromkeys(column for one in found.values() for row in one[part].values() for column in row)
    return [column for column in RULES if column in present] + [column for column in present if column not in RULES]


def _shown(figure: Mapping | None, interval: bool = True) -> str:
    if figure is None:
        return "–"
    return percent(figure["value"], (figure["low"], figure["high"]) if interval and figure["low"] is not None else None)
