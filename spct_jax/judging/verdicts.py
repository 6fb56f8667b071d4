"""Verdicts as the judge command writes them: the JSON object, figures over many of them, and one told to a person."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from spct_jax.data.comparison import Comparison
from spct_jax.data.sources import ReadReport
from spct_jax.grm import voting

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One critique."""

    order: tuple[int, ...]
    """order[j] is the index of the response shown in place j."""
    scores: tuple[float, ...] | None
    """Per response, in input order; None if the critique is cut short or does not parse."""
    meta: float | None
    """The meta RM's reward."""
    text: str
    truncated: bool = False
    """Whether the critique was cut at the limit of tokens, and so is not read."""
    tokens: int = 0
    """Length of the completion, terminator included."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What k critiques add up to."""

    id: str
    scores: tuple[float, ...] | None
    """Summed score per response (Eq. 14; the guided vote's with a meta RM); None if no critique parsed."""
    best: int | None
    """The response with the highest sum; None if several share it."""
    tied: tuple[int, ...]
    """The responses that share the highest sum, where they are several."""
    k: int
    """Samples drawn."""
    valid: int
    """Samples that could be read."""
    truncated: int
    """Samples that were cut at the limit of tokens."""
    samples: tuple[Sample, ...]


def to_json(verdict: Verdict) -> dict[str, Any]:
    """The JSON object of a verdict; a meta reward that is not finite becomes null, which JSON has a word for."""
    record = dataclasses.asdict(verdict)
    for sample in record["samples"]:
        del sample["tokens"]
        if sample["meta"] is not None and not math.isfinite(sample["meta"]):
            sample["meta"] = None
    fields = ("id", "scores", "best", "tied", "k", "valid", "truncated", "samples")
    return {field: record[field] for field in fields}


class Summary:
    """What became of the lines of an input, and how sure and how right the verdicts on them are."""

    def __init__(self):
        self.lines = ReadReport()
        self.blank = 0
        self.samples = 0
        self.valid = 0
        self.truncated = 0
        self.without_verdict = 0
        self.ties = 0
        self.comparable = 0
        """Verdicts over several responses: those that can tie."""
        self.credit = 0.0
        self.known = 0
        """Verdicts over several responses of which people, too, found one best."""

    def add_error(self, reason: str) -> None:
        """Counts a line that could not be scored."""
        self.lines.read += 1
        self.lines.skip(reason)

    def add_blank(self) -> None:
        """Counts a line with nothing on it."""
        self.blank += 1

    def add_verdict(self, record: Mapping[str, Any], comparison: Comparison) -> None:
        """Counts a verdict, given as its JSON object."""
        scores = record["scores"]
        self.lines.read += 1
        self.lines.used += 1
        self.samples += len(record["samples"])
        self.valid += record["valid"]
        self.truncated += record["truncated"]
        self.without_verdict += scores is None
        if comparison.n > 1:
            self.comparable += scores is not None
            self.ties += voting.is_tie(scores)
            if comparison.best is not None:
                self.known += 1
                self.credit += voting.expected_credit(scores, comparison.best, comparison.n)

    def __str__(self) -> str:
        lines, errors = self.lines, self.lines.read - self.lines.used
        blank = f", {self.blank:,} blank" if self.blank else ""
        text = [f"{_count(lines.read + self.blank, 'line')}: {lines.used:,} scored, {_count(errors, 'error')}{blank}"]
        reasons = sorted(lines.skipped.items(), key=lambda item: -item[1])
        text += [f"  {count:,} x {reason}" for reason, count in reasons]
        if self.samples:
            text.append(f"samples: {self.samples / lines.used:.1f} per comparison, {_share(self.valid, self.samples)} valid")
        if self.truncated:
            text.append(f"truncated, and so not valid: {_share(self.truncated, self.samples)} samples")
        if self.without_verdict:
            text.append(f"without a verdict, since no sample was valid: {_count(self.without_verdict, 'comparison')}")
        if self.comparable:
            text.append(f"ties: {_share(self.ties, self.comparable)}")
        if self.known:
            text.append(f"agreement with the given scores: {_share(self.credit, self.known)} (a tie counts by its chance)")
        return "\n".join(text)


def explain(comparison: Comparison, record: Mapping[str, Any]) -> str:
    """A verdict, given as its JSON object, as a person reads it; responses and samples are numbered from 1."""
    samples, totals = record["samples"], record["scores"]
    blocks = [_block(turn.role.capitalize(), turn.content) for turn in comparison.conversation]
    blocks += [_block(f"Response {number}", text) for number, text in enumerate(comparison.responses, 1)]
    for number, sample in enumerate(samples, 1):
        order = ", ".join(str(index + 1) for index in sample["order"])
        blocks.append(_block(f"Sample {number} (responses shown in the order {order})", f"{sample['text']}\n{_read(sample)}"))
    blocks.append(_vote_table(samples, totals, comparison.n))
    blocks.append(_outcome(totals, record["valid"], len(samples)))
    if comparison.scores is not None:
        blocks[-1] += f"\nThe scores given by people: {_listed(comparison.scores)}."
    return "\n\n".join(blocks)


def _read(sample: Mapping[str, Any]) -> str:
    unread = "cut at the limit of tokens, not read" if sample["truncated"] else "no scores that can be read"
    scores = unread if sample["scores"] is None else _listed(sample["scores"])
    meta = "" if sample["meta"] is None else f"; meta reward {sample['meta']:.3f}"
    return f"=> {scores}{meta}"


def _vote_table(samples: Sequence[Mapping[str, Any]], totals: Sequence[float] | None, n: int) -> str:
    guided = any(sample["meta"] is not None for sample in samples)
    rows = [["votes", *(f"response {number}" for number in range(1, n + 1)), *["meta reward"] * guided]]
    for number, sample in enumerate(samples, 1):
        meta = "-" if sample["meta"] is None else f"{sample['meta']:.3f}"
        scores = ["-"] * n if sample["scores"] is None else [f"{score:g}" for score in sample["scores"]]
        rows.append([f"sample {number}", *scores, *[meta] * guided])
    if totals is not None:
        rows.append(["total", *(f"{total:g}" for total in totals), *[""] * guided])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *cells in rows:
        cells = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    everything = voting.sum_vote([sample["scores"] for sample in samples], n)
    if guided and totals is not None and list(totals) != list(everything):
        lines.append("(The total is of the samples that the meta reward model trusts most.)")
    return "\n".join(lines)


def _outcome(totals: Sequence[float] | None, valid: int, drawn: int) -> str:
    counted = f"{valid} of {_count(drawn, 'sample')} could be read"
    if totals is None:
        return f"No verdict: {counted}."
    if len(totals) == 1:
        return f"The response gets {totals[0]:g}; {counted}."
    top, second = sorted(totals, reverse=True)[:2]
    winners = [str(index + 1) for index in voting.winners(totals)]
    if len(winners) > 1:
        return f"A tie: responses {', '.join(winners[:-1])} and {winners[-1]} share the highest total, {top:g}; {counted}."
    return f"Response {winners[0]} wins by {top - second:g}, {top:g} to {second:g}; {counted}."


def _block(title: str, text: str) -> str:
    # What a user or a model wrote must not drive the reader's terminal.
    text = _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n"))
    return "\n".join([title, *(f"  {line}".rstrip() for line in text.split("\n"))])


def _listed(scores: Sequence[float]) -> str:
    return ", ".join(f"response {number}: {score:g}" for number, score in enumerate(scores, 1))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _share(part: float, whole: int) -> str:
    return f"{100 * part / whole:.1f} % of {whole:,}"
