"""Accuracy from sampled verdicts; see `bootstrap` for how far to trust it.

A problem is a *row*, one object of `evaluate/<name>.jsonl`: `id`, `n` responses, `best` (the index of the right one),
`single` (one response, judged right or wrong) and `samples`, each with `scores` in input order (null if it could not be
read), `truncated` (whether it was cut at the limit, and so not read) and `meta` (a reward, or null). k votes are always
the first k samples, so k = 8 is a prefix of k = 32.
A tie between t responses credits 1/t, what breaking it at random would earn; no valid vote at all credits 1/n.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from spct_jax.evaluation import recorded
from spct_jax.grm import voting


@dataclasses.dataclass(frozen=True)
class Tally:
    """What one way of judging earned on each of P problems.

    Attributes:
      credit: Float64[P] in [0, 1].
      tied: Bool[P], whether more than one response had the highest total.
    """

    credit: np.ndarray
    tied: np.ndarray

    @property
    def accuracy(self) -> float:
        """The mean credit."""
        return float(self.credit.mean())

    @property
    def tie_rate(self) -> float:
        """The share of problems that ended in a tie for best."""
        return float(self.tied.mean())


def tally(rows: Sequence[Mapping], k: int, k_meta: int | None = None, read: str = "scores") -> Tally:
    """Judges each problem by its first k samples' vote (Eq. 14), or by that of the k_meta the meta RM rates best.

    `read` is the field of a sample that votes: its `scores`, or its `expected` ones.
    """
    credit, tied = np.empty(len(rows)), np.empty(len(rows), bool)
    for index, row in enumerate(rows):
        totals = vote(row, k, k_meta, read)
        credit[index] = voting.expected_credit(totals, row["best"], row["n"])
        tied[index] = voting.is_tie(totals)
    return Tally(credit, tied)


def vote(row: Mapping, k: int, k_meta: int | None = None, read: str = "scores") -> tuple | None:
    """The summed score of each response over the votes that count, or None if none of them parsed; `read` as in `tally`."""
    return recorded.totals(recorded.from_verdict(row, read=read).first(k, k_meta).votes, row["n"])


def votes(measure: str) -> int:
    """The k of `vote@k` or `meta@k`."""
    return int(measure.partition("@")[2])


def guided_votes(k: int, fraction: float = 0.5) -> int:
    """How many of k samples a meta-guided vote keeps: the fraction rounded down, at least one."""
    return max(1, int(k * fraction + 1e-9))  # 50 * 0.58 is less than 29


def single_credit(rows: Sequence[Mapping], truths: Sequence[int], k: int) -> np.ndarray:
    """Float64[P]: problems of one response, judged by the commonest score of the first k samples.

    With scores of 0 and 1 that is the majority; equally common ones share the credit, and none at all earns 1/2.
    """
    credit = np.full(len(rows), 0.5)
    for index, (row, truth) in enumerate(zip(rows, truths, strict=True)):
        scores = [sample["scores"][0] for sample in row["samples"][:k] if sample["scores"] is not None]
        if scores:
            counts = collections.Counter(scores)
            commonest = [score for score, count in counts.items() if count == max(counts.values())]
            credit[index] = (truth in commonest) / len(commonest)
    return credit


def all_votes(rows: Sequence[Mapping]) -> list[recorded.Vote]:
    """Every sample of the rows as a vote."""
    return [vote for row in rows for vote in recorded.from_verdict(row, read="scores").votes]


def agreement(rows: Sequence[Mapping]) -> float | None:
    """The chance that two samples of one problem name the same best response, ties broken at random.

    The mean over problems with at least two valid samples; None if there are none.
    """
    rates = []
    for row in rows:
        scores = np.array([sample["scores"] for sample in row["samples"] if sample["scores"] is not None])
        if len(scores) > 1:
            best = scores == scores.max(axis=1, keepdims=True)
            picks = best / best.sum(axis=1, keepdims=True)
            pairs = len(picks) * (len(picks) - 1)
            rates.append((np.square(picks.sum(axis=0)).sum() - np.square(picks).sum()) / pairs)
    return float(np.mean(rates)) if rates else None
