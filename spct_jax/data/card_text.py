"""A data card as a page to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from spct_jax import terminal

LONGEST_SHOWN = 700
"""Characters of a text that are shown of it."""
_WIDTH = 24


def render(card: Mapping[str, Any]) -> str:
    """The page of what `card.make` gives, to which the caller adds "source", "licence", "rule" for ties and "unit"."""
    parts = [_head(card), _skipped(card), _doubles(card)]
    if card["kind"] == "comparisons":
        parts.append(_choices(card))
    parts += [_lengths(card), *(_example(card, number) for number in range(len(card["examples"])))]
    return terminal.printable("\n\n".join(part for part in parts if part))


def _head(card: Mapping[str, Any]) -> str:
    answers = "responses" if card["kind"] == "comparisons" else "completions"
    lines = [("licence", card["licence"] or "not known here")] + [("ties", card["rule"])] * bool(card["rule"])
    lines.append((card["kind"], f"{card['records']:,} of {card['read']:,} rows"))
    lines.append(("different prompts", f"{card['prompts']:,}"))
    lines.append((f"{answers} each", _of_each(card["answers"], card["records"])))
    lines.append(("turns of a prompt", _of_each(card["turns"], card["records"])))
    return f"{card['source']}\n" + _rows(lines)


def _skipped(card: Mapping[str, Any]) -> str:
    lines = []
    for reason, count in sorted(card["skipped"].items(), key=lambda item: -item[1]):
        lines.append((f"{count:,}", reason))
        lines += [("", example) for example in card["skipped_examples"].get(reason, ())]
    return "left out\n" + _rows(lines) if lines else ""


def _doubles(card: Mapping[str, Any]) -> str:
    if not card["duplicates"]:
        return "no duplicates"
    lines = [("copies of earlier records", _share(card["duplicates"], card["records"]))]
    lines += [("", f"{copy} says the same as {first}") for copy, first in card["duplicate_examples"]]
    return "duplicates\n" + _rows(lines)


def _choices(card: Mapping[str, Any]) -> str:
    lines = [
        ("ties for the best", _share(card["ties"], card["records"])),
        ("without scores", _share(card["unscored"], card["records"])),
        ("equal responses", _share(card["same_responses"], card["records"])),
    ]
    if decided := card["decided"]:
        lines += [
            ("the best is number", _of_each(card["best_position"], decided)),
            (
                "the best is longest",
                f"{_share(card['best_is_longest'], decided)}; shortest {_percent(card['best_is_shortest'], decided)}",
            ),
        ]
    return "what people chose\n" + _rows(lines)


def _lengths(card: Mapping[str, Any]) -> str:
    measured = "" if card["measured"] == card["records"] else f" (of a sample of {card['measured']:,} records)"
    found = card["lengths"]
    points = list(next(iter(found.values()))["percentiles"])
    lines = [["", "mean", "least", *(f"{point} %" for point in points), "most"]]
    for name, figures in found.items():
        values = [figures["mean"], figures["least"], *figures["percentiles"].values(), figures["most"]]
        lines.append([name, *(f"{value:,.0f}" for value in values)])
    text = f"lengths in {card['unit']}{measured}\n"
    text += "\n".join(f"  {line[0]:{_WIDTH}}" + "".join(f"{cell:>10}" for cell in line[1:]) for line in lines)
    if "prompt" in found:
        over = {limit: count for limit, count in found["prompt"]["longer_than"].items() if count}
        said = ", ".join(f"{int(limit):,}: {_percent(count, card['measured'])}" for limit, count in over.items())
        text += f"\n  {'prompts longer than':{_WIDTH}}{said or 'any limit from 512 on: none'}"
    return text


def _example(card: Mapping[str, Any], number: int) -> str:
    example = card["examples"][number]
    record, lines = example["record"], [f"example {number + 1}: {example['where']}"]
    for turn in record.get("conversation", record.get("turns")):
        lines.append(_block(turn["role"], turn["content"]))
    scores = record.get("scores")
    for i, answer in enumerate(record.get("responses", record.get("completions"))):
        score = "" if scores is None else f", score {scores[i]:g}"
        lines.append(_block(f"{'response' if 'responses' in record else 'completion'} {i + 1}{score}", answer))
    return "\n".join(lines)


def _block(title: str, text: str) -> str:
    shown = text[:LONGEST_SHOWN] + (f" ... ({len(text):,} characters)" if len(text) > LONGEST_SHOWN else "")
    return f"  [{title}]\n" + "\n".join(f"    {line}" for line in shown.splitlines())


def _rows(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"  {name:{_WIDTH - 1}} {value}" for name, value in lines)


def _of_each(counts: Mapping[str, int], total: int) -> str:
    most = sorted(counts.items(), key=lambda item: -item[1])
    said = ", ".join(f"{value}: {count:,} ({_percent(count, total)})" for value, count in most[:6])
    return said + (f", {len(most) - 6} others" if len(most) > 6 else "")


def _share(count: int, total: int) -> str:
    return f"{count:,} ({_percent(count, total)})"


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %"
