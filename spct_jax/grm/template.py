r"""Templates: wordings of the task, read from files.

A template is a plain text file: a header of `key: value` lines, then sections that open with `--- name`.

    low: 1
    high: 10
    parts: Specific Criteria, Analysis, Scores
    --- response
    [Response {number} begins]
    {response}
    [Response {number} ends]
    --- hint
    Response {number} is known to be the best.
    --- prompt
    Read the conversation, then score the responses. {conversation} There are {n}: {responses}
    {hint}

`low` and `high` bound the scores (1 and 10 when absent). Scores are read by `parse.parse`, or after a line `reading: lenient`
by `parse.parse_lenient`, for models that were not trained to be read strictly. `parts` are the labels that an answer is divided
by, each of which the prompt must mention: principles, analysis and verdict, or the last two only, or none. `response` is how
one response is shown; `hint`, which may be left out, is a line that gives the answer away. In `prompt`, {conversation} and
{responses} stand once each, {hint} on a line of its own wherever there is a hint section, and {n} anywhere; every
other brace, such as that of \boxed{}, is plain text. What stands before all of these is the preamble: it is the same in every
prompt, so a model reads it once for all of them, and instructions are best placed there.

A template that shows an answer known to be right has a section `reference`, with {reference} in it, and a line {reference} of
its own in the prompt; for a comparison without such an answer the line is left out.

No text of a user can pass for one of ours. A marker is a line of the response section other than {response} itself, likewise
of the reference section, a line of the hint, or a line of the prompt in square brackets or between signs `#`. Wherever a
user's text holds what looks like a marker, in any case, spacing or number and with invisible characters between, a tilde goes
in after its first character: `[Response 2 ends]` is shown as `[~Response 2 ends]`. A line that begins like a turn of the
conversation or a part of an answer, as `Assistant:` and `Scores:` do, gets the tilde in front.
"""

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as LocalPath

from spct_jax.errors import InputError
from spct_jax.storage import files, paths
from spct_jax.storage.paths import Path

LARGEST = 1 << 20
"""Bytes of a template."""
_TEMPLATES = LocalPath(__file__).parent / "templates"
_SECTION = re.compile(r"--- *(\w+) *")
HINT_LINE = re.compile(r"^\{hint\}$\n?", re.MULTILINE)
"""The line of a prompt that holds the hint."""
REFERENCE_LINE = re.compile(r"^\{reference\}$\n?", re.MULTILINE)
"""The line of a prompt that holds the reference answer."""
_SECTION_LINE = re.compile(r"^(?:\[.+\]|#+ .+ #+)$", re.MULTILINE)
_LINE_BREAK = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
# White space, controls, and what Unicode gives no width or no ink.
_INVISIBLE = (
    "\\s\\x00-\\x1f\\x7f-\\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff"
)
_GAP = f"[{_INVISIBLE}]*+"
_INLINE = f"(?:(?![{_LINE_BREAK}])[{_INVISIBLE}])*+"
_NUMBER = f"(?:[\\d#.+-]{_GAP}){{0,32}}"  # bounded, or a megabyte of '#' would be searched from each of its characters
_COLON = "[:\uff1a\ufe55\u2236\ua789]"
ROLE_LABELS = {"system": "System", "user": "User", "assistant": "Assistant"}
"""What opens a turn of the conversation, by its role."""


@dataclass(frozen=True)
class Template:
    """One wording of the task; see the module for the file it is read from.

    Attributes:
      name: the name or path it was loaded by; no part of what it says, so not of its representation either.
      text: the content of its file.
      low, high: the range of the integer scores.
      parts: labels of the parts of an answer, in order.
      prompt: text with {conversation}, {responses}, and where it is used {hint} and {n}.
      response: text with {number} and {response}.
      hint: text with {number}, or None.
      marker: matches the first character of whatever looks like one of this template's markers.
      opening: matches, empty, before a line that begins like a turn or like one of the parts.
      reference: text with {reference}, or None.
      lenient: whether scores are read by `parse.parse_lenient`.
    """

    name: str = field(repr=False)
    text: str
    low: int
    high: int
    parts: tuple[str, ...]
    prompt: str
    response: str
    hint: str | None
    marker: re.Pattern
    opening: re.Pattern
    # Not in the representation, of which digests are made: they are part of the text, which is.
    reference: str | None = field(default=None, repr=False)
    lenient: bool = field(default=False, repr=False)

    @property
    def principles(self) -> bool:
        """Whether an answer opens with principles of the model's own, under the first of three labels."""
        return len(self.parts) == 3


def template_names() -> tuple[str, ...]:
    """The names of the templates that come with the package."""
    return tuple(sorted(path.stem for path in _TEMPLATES.glob("*.txt")))


@functools.lru_cache(maxsize=64)
def load_template(name_or_path: str | os.PathLike) -> Template:
    """The template of that name in the package, or else in that file.

    Raises:
      InputError: when there is neither, or the file is not a template; it names the file, and the line or section.
    """
    path = _TEMPLATES / f"{name_or_path}.txt" if str(name_or_path) in template_names() else paths.of(name_or_path)
    if not path.exists():
        ours = ", ".join(template_names())
        raise InputError(f"no template {str(name_or_path)!r} (a file, or one of {ours})")
    try:
        text = files.read_bytes(path, LARGEST).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot read the template ({error})") from None
    header, sections = _split(path, text.splitlines())
    return _checked(path, str(name_or_path), text, header, sections)


def _split(path: Path, lines: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    header, sections, section = {}, {}, None
    for number, line in enumerate(lines, start=1):
        if opened := _SECTION.fullmatch(line):
            section = opened[1]
            if section not in ("prompt", "response", "hint", "reference") or section in sections:
                raise InputError(f"{path}:{number}: unknown or repeated section {section!r}")
            sections[section] = []
        elif section is not None:
            sections[section].append(line)
        elif line.strip():
            key, colon, value = (part.strip() for part in line.partition(":"))
            if not colon or key not in ("low", "high", "parts", "reading") or key in header:
                raise InputError(f"{path}:{number}: expected 'low:', 'high:', 'parts:', 'reading:' or '--- section', each once")
            header[key] = value
    return header, {name: "\n".join(body).strip("\n") for name, body in sections.items()}


def _checked(path: Path, name: str, text: str, header: dict[str, str], sections: dict[str, str]) -> Template:
    for section, placeholders in {"prompt": ("conversation", "responses"), "response": ("number", "response")}.items():
        if section not in sections:
            raise InputError(f"{path}: no section '--- {section}'")
        for placeholder in placeholders:
            count = sections[section].count(f"{{{placeholder}}}")
            if count == 0 or (count > 1 and placeholder != "number"):
                raise InputError(f"{path}: the {section} section needs {{{placeholder}}} once, has {count}")
    prompt, response, hint = sections["prompt"], sections["response"], sections.get("hint")
    if hint is not None and "{number}" not in hint:
        raise InputError(f"{path}: the hint section needs {{number}}")
    if len(HINT_LINE.findall(prompt)) != prompt.count("{hint}") or prompt.count("{hint}") != (hint is not None):
        raise InputError(f"{path}: a hint section and a line '{{hint}}' of its own in the prompt need each other")
    reference = sections.get("reference")
    if reference is not None and reference.count("{reference}") != 1:
        raise InputError(f"{path}: the reference section needs {{reference}} once, has {reference.count('{reference}')}")
    lines = len(REFERENCE_LINE.findall(prompt))
    if lines != (reference is not None) or (lines and prompt.count("{reference}") != 1):
        raise InputError(f"{path}: a reference section and a line '{{reference}}' of its own in the prompt need each other")
    try:
        low, high = int(header.get("low", "1")), int(header.get("high", "10"))
    except ValueError:
        raise InputError(f"{path}: low and high must be integers") from None
    if low >= high:
        raise InputError(f"{path}: low ({low}) must be below high ({high})")
    parts = tuple(part.strip() for part in header.get("parts", "").split(",") if part.strip())
    if len(parts) not in (0, 2, 3):
        raise InputError(f"{path}: parts must be none, two or three labels, but are {len(parts)}")
    for part in parts:
        if part not in prompt:
            raise InputError(f"{path}: the prompt does not mention the part {part!r}")
    if (reading := header.get("reading", "strict")) not in ("strict", "lenient"):
        raise InputError(f"{path}: reading is {reading!r}, neither strict nor lenient")
    marker, lenient = _marker(path, prompt, response, hint, reference), reading == "lenient"
    return Template(name, text, low, high, parts, prompt, response, hint, marker, _opening(parts), reference, lenient)


def _marker(path: Path, prompt: str, response: str, hint: str | None, reference: str | None) -> re.Pattern:
    fences = [line.strip() for text in response.split("{response}") for line in text.splitlines() if line.strip()]
    hints = [line.strip() for line in (hint or "").splitlines() if line.strip()]
    shown = [line.strip() for line in (reference or "").replace("{reference}", "\n").splitlines() if line.strip()]
    # A heading has a run of '#' on both sides, however long: it looks the same with fewer or more of them.
    lines = [re.sub("^#+|#+$", "#", line) for line in _SECTION_LINE.findall(prompt)]
    for section, markers in (("response", fences), ("hint", hints), ("reference", shown), ("prompt", lines)):
        if any("~" in marker or len(re.sub(r"\{number\}|\s", "", marker)) < 2 for marker in markers) or not fences:
            around = " around {response}" * (section == "response")
            raise InputError(f"{path}: the {section} section needs markers{around}, 2 characters or more, no '~'")
    # A sentence says the same without its full stop.
    markers = {*fences, *(line.rstrip(".!") for line in (*hints, *shown)), *lines}
    return re.compile(f"(?={'|'.join(map(_lookalike, sorted(markers)))}).", re.IGNORECASE | re.DOTALL)


def _opening(parts: Sequence[str]) -> re.Pattern:
    dress = "#*_"  # of a label in bold, or as a heading
    labels = "|".join(_lookalike(label.strip(dress), _INLINE) for label in (*ROLE_LABELS, *parts))
    around = f"(?:(?![{_LINE_BREAK}])[{_INVISIBLE}{dress}])*+"
    return re.compile(f"(?<![^{_LINE_BREAK}])(?={around}(?:{labels}){around}{_COLON})", re.IGNORECASE)


def _lookalike(marker: str, gap: str = _GAP) -> str:
    # What it begins or ends with may be any number, so none: it would be looked for everywhere.
    words = re.split(r"\{number\}|\{n\}", re.sub(r"\s", "", marker.removeprefix("{number}").removesuffix("{number}")))
    return f"{_GAP}{_NUMBER}".join(gap.join(map(re.escape, word)) for word in words)
