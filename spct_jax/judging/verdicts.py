"""Verdicts: the dataclasses, the JSON object that the judge command writes of one, and a summary of many."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from spct_jax.data.comparison import Comparison
from spct_jax.data.jsonl import ReadReport
from spct_jax.grm import voting
from spct_jax.reward_models.base import Scores


@dataclasses.dataclass(frozen=True)
class Sample:
    """One critique."""

    order: tuple[int, ...] | None
    """order[j] is the index of the response shown at position j; None of a model that sees no order."""
    scores: tuple[float, ...] | None
    """Per response, in input order; None if the critique is cut short or does not parse."""
    meta: float | None
    """The meta RM's reward."""
    text: str
    truncated: bool = False
    """Whether the critique was cut at the limit of tokens, and so is not read."""
    tokens: int = 0
    """Length of the completion, terminator included."""
    expected: tuple[float, ...] | None = None
    """Per response, in input order, the mean over all scores that could stand there; None unless it was asked for."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What k critiques add up to."""

    id: str
    scores: tuple[float, ...] | None
    """Summed score per response (Eq. 14; the guided vote's with a meta RM), or summed expected score; None if no critique
    parsed."""
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
    expected: bool = False
    """Whether it is the samples' expected scores that count."""


def of_scores(scored: Scores) -> Verdict:
    """The verdict that a scalar reward model's scores amount to; one without critiques is one sample."""
    top = voting.winners(scored.scores)
    samples = [
        Sample(None, one.scores, None, "\n\n".join(one.texts), truncated=one.truncated, tokens=one.tokens)
        for one in scored.samples
    ] or [Sample(None, scored.scores, None, "")]
    return Verdict(
        id=scored.id,
        scores=scored.scores,
        best=top[0] if len(top) == 1 else None,
        tied=top if len(top) > 1 else (),
        k=len(samples),
        valid=sum(sample.scores is not None for sample in samples),
        truncated=sum(sample.truncated for sample in samples),
        samples=tuple(samples),
    )


def to_json(verdict: Verdict) -> dict[str, Any]:
    """The JSON object of a verdict; a meta reward that is not finite becomes null, since JSON cannot write it."""
    record = dataclasses.asdict(verdict)
    record["samples"] = [sample_to_json(sample) for sample in verdict.samples]
    for sample in record["samples"]:
        del sample["tokens"]
        if verdict.expected:
            sample.setdefault("expected", None)
        if sample["meta"] is not None and not math.isfinite(sample["meta"]):
            sample["meta"] = None
    fields = ("id", "scores", "best", "tied", "k", "valid", "truncated", "samples")
    return {field: record[field] for field in fields}


def sample_to_json(sample: Sample) -> dict[str, Any]:
    """The fields of a sample, `expected` only where there is one."""
    return {name: value for name, value in dataclasses.asdict(sample).items() if name != "expected" or value is not None}


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
        text = [f"{count(lines.read + self.blank, 'line')}: {lines.used:,} scored, {count(errors, 'error')}{blank}"]
        reasons = sorted(lines.skipped.items(), key=lambda item: -item[1])
        text += [f"  {count:,} x {reason}" for reason, count in reasons]
        if self.samples:
            text.append(f"samples: {self.samples / lines.used:.1f} per comparison, {_share(self.valid, self.samples)} valid")
        if self.truncated:
            text.append(f"truncated, and so not valid: {_share(self.truncated, self.samples)} samples")
        if self.without_verdict:
            text.append(f"without a verdict, since no sample was valid: {count(self.without_verdict, 'comparison')}")
        if self.comparable:
            text.append(f"ties: {_share(self.ties, self.comparable)}")
        if self.known:
            text.append(f"agreement with the given scores: {_share(self.credit, self.known)} (a tie counts by its chance)")
        return "\n".join(text)


def count(number: int, noun: str) -> str:
    """3, "sample" as "3 samples"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _share(part: float, total: int) -> str:
    return f"{100 * part / total:.1f} % of {total:,}"
