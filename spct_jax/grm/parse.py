"""Reading a verdict: the last box of a critique's last part, as integers."""

import functools
import re
from collections.abc import Sequence

_BOX = re.compile(r"\\boxed\s*\{")
_BRACKET = re.compile(r"(\\boxed\s*\{|\[)|[}\]]")
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_DECIMAL = re.compile(r"[-+]?(?:[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})")


def parse(text: str, n: int, *, parts: Sequence[str] = (), low: int = 1, high: int = 10) -> tuple[int, ...] | None:
    r"""The scores in the last `\boxed{...}` of a completion: f_extract of Eq. 2.

    Strict, so that form is learnt: the last box opened must be closed and hold exactly n comma-separated integers in
    ASCII digits, all in [low, high]. An earlier box never stands in for a broken last one. The box may be written with
    one backslash or two.

    Args:
      text: of the completion.
      n: how many scores there must be.
      parts: labels of the parts of an answer. Only what follows the last line that opens with the last label is read, so
        that a box quoted in the analysis is no verdict; without labels all of the text is read.
      low, high: the range of a score.

    Returns:
      n scores in the order the responses were shown, or None.
    """
    scores = tuple(int(text[start:end]) for start, end in spans(text, n, parts=parts) or ())
    return scores if scores and all(low <= score <= high for score in scores) else None


def spans(text: str, n: int, *, parts: Sequence[str] = ()) -> tuple[tuple[int, int], ...] | None:
    """Where `parse` finds the n integers, whatever their range: (first character, one past the last) of each, or None."""
    at = 0
    if parts:
        at = max((match.end() for match in _label(parts[-1]).finditer(text)), default=len(text))
    start = max((match.end() for match in _BOX.finditer(text, at)), default=None)
    end = -1 if start is None else text.find("}", start)
    if end < 0 or text.count(",", start, end) != n - 1:
        return None
    found = []
    for item in text[start:end].split(","):
        first = start + len(item) - len(item.lstrip())
        found.append((first, first + len(item.strip())))
        start += len(item) + 1
    return tuple(found) if all(_INTEGER.fullmatch(text, *span) for span in found) else None


def parse_lenient(text: str, n: int, *, parts: Sequence[str] = (), low: int = 1, high: int = 10) -> tuple[float, ...] | None:
    r"""The scores of a completion by the rules of the parser that goes with the weights of DeepSeek-GRM.

    They were not trained for `parse` and may write a list in brackets, a decimal, or a word beside the numbers. The last closed
    `\boxed{...}` or `[...]` counts, whatever it holds; what is no number between its commas is passed over, n numbers must be
    left, and each is clipped to [low, high]. Unlike that parser, this one never reads a box that stands before the last part
    of an answer, if there is such a part.

    Args:
      text: of the completion.
      n: how many scores there must be.
      parts: labels of the parts of an answer. What follows the last line that opens with the last label is read, all of the
        text where there is no such line.
      low, high: the range of a score.

    Returns:
      n scores in the order the responses were shown, whole ones as integers; or None.
    """
    at = max((match.end() for match in _label(parts[-1]).finditer(text)), default=0) if parts else 0
    start, found = None, ""
    for match in _BRACKET.finditer(text, at):
        if start is None:
            start = match.end() if match[1] else None
        elif not match[1]:
            found, start = text[start : match.start()].strip() or found, None
    items = (item.strip() for item in found.split(","))
    numbers = [min(max(float(item), low), high) for item in items if _DECIMAL.fullmatch(item)]
    return tuple(int(x) if x == int(x) else x for x in numbers) if len(numbers) == n else None


def parse_choice(text: str, n: int, parts: Sequence[str] = ()) -> int | None:
    """The index, from 0 and as shown, of the response that an LLM judge's last box names by 1..n (Eq. 6); or None."""
    choice = parse(text, 1, parts=parts, low=1, high=n)
    return None if choice is None else choice[0] - 1


def principles(text: str, parts: Sequence[str]) -> str | None:
    """The principles that a critique opens with: what is between the labels of its first two parts; None if nothing is.

    Args:
      text: the critique.
      parts: the labels of its three parts.
    """
    opening = _label(parts[0]).search(text)
    closing = opening and _label(parts[1]).search(text, opening.end())
    return (text[opening.end() : closing.start()].strip() or None) if closing else None


def unshuffle(scores: Sequence[float], order: Sequence[int]) -> tuple[float, ...]:
    """Scores by position into scores by response: `order[j]` is the response that was shown at position j."""
    if len(scores) != len(order):
        raise ValueError(f"{len(scores)} scores for an order of {len(order)}")
    return tuple(score for _, score in sorted(zip(order, scores, strict=True), key=lambda pair: pair[0]))


@functools.lru_cache(maxsize=64)
def _label(part: str) -> re.Pattern:
    # Models like to set a label in bold or as a heading.
    return re.compile(rf"^[ \t#*_]*+{re.escape(part)}[ \t*_]*+:", re.MULTILINE)
