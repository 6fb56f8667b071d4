"""Accuracy from sampled verdicts, and how far to trust it.

A problem is a *row*, one object of `evaluate/<name>.jsonl`: `id`, `n` responses, `best` (the index of the right one),
`single` (one response, judged right or wrong) and `samples`, each with `scores` in input order (null if it could not be
read), `truncated` (whether it was cut at the limit, and so not read) and `meta` (a reward, or null). k votes are always
the first k samples, so k = 8 is a prefix of k = 32.
A tie between t responses credits 1/t, what breaking it at random would earn; no valid vote at all credits 1/n.

Intervals are percentile bootstraps [Efron and Tibshirani, 1993]. The mean of n problems drawn with replacement depends
only on how often each distinct credit is drawn, which is multinomial; credits take few values (0, 1/4, 1/3, 1/2, 1), so
2,000 resamples of 2,000 problems cost a millisecond and are drawn from exactly the usual distribution.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

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


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean difference and its bootstrap interval."""

    mean: float
    low: float
    high: float


def tally(rows: Sequence[Mapping], k: int, k_meta: int | None = None) -> Tally:
    """Judges each problem by its first k samples' vote (Eq. 14), or by that of the k_meta the meta RM rates best."""
    credit, tied = np.empty(len(rows)), np.empty(len(rows), bool)
    for index, row in enumerate(rows):
        totals = vote(row, k, k_meta)
        credit[index] = voting.expected_credit(totals, row["best"], row["n"])
        tied[index] = voting.is_tie(totals)
    return Tally(credit, tied)


def vote(row: Mapping, k: int, k_meta: int | None = None) -> tuple | None:
    """The summed score of each response over the votes that count, or None if none of them parsed."""
    samples = [sample["scores"] for sample in row["samples"][:k]]
    if k_meta is None or k == 1:
        return voting.sum_vote(samples, row["n"])
    meta = [sample["meta"] for sample in row["samples"][:k]]
    return voting.guided_vote(samples, meta, k_meta, row["n"])


def votes(measure: str) -> int:
    """How many samples `vote@k` or `meta@k` looks at, k."""
    return int(measure.partition("@")[2])


def guided_votes(k: int, fraction: float = 0.5) -> int:
    """How many of k samples a meta-guided vote keeps: the fraction rounded down, at least one."""
    return max(1, int(k * fraction))


def single_credit(rows: Sequence[Mapping], truths: Sequence[int], k: int) -> np.ndarray:
    """Float64[P]: problems of one response, judged by the commonest reading of the first k samples.

    With 0/1 readings that is the majority; readings equally common share the credit, and none at all earns 1/2.
    """
    credit = np.full(len(rows), 0.5)
    for index, (row, truth) in enumerate(zip(rows, truths, strict=True)):
        readings = [sample["scores"][0] for sample in row["samples"][:k] if sample["scores"] is not None]
        if readings:
            counts = collections.Counter(readings)
            commonest = [reading for reading, count in counts.items() if count == max(counts.values())]
            credit[index] = (truth in commonest) / len(commonest)
    return credit


def malformed_rate(rows: Sequence[Mapping]) -> float:
    """The share of all samples that could not be read, for whatever reason."""
    invalid = [sample["scores"] is None for row in rows for sample in row["samples"]]
    return sum(invalid) / len(invalid)


def truncated_rate(rows: Sequence[Mapping]) -> float | None:
    """The share of all samples that were cut at the limit of tokens; None where the rows do not say."""
    cut = [sample.get("truncated") for row in rows for sample in row["samples"]]
    return None if None in cut else sum(cut) / len(cut)


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


def bootstrap_interval(credits: np.ndarray, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """The bootstrap interval of the mean of credits, Float[P], over problems drawn with replacement."""
    return _interval(_resampled_means(credits, np.random.default_rng(seed), resamples), level)


def paired_bootstrap(a: np.ndarray, b: np.ndarray, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> Difference:
    """The mean of a - b over the same P problems, with its interval over problems."""
    return pooled_bootstrap([_paired(a, b)], seed, resamples, level)


def pooled_bootstrap(
    differences: Sequence[np.ndarray],
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
    shared_problems: bool = False,
) -> Difference:
    """The mean over runs of per-problem differences, with its interval over problems, the runs taken as they are.

    Args:
      differences: Float[P_s] for each run s. Runs count by their number of problems.
      seed: of the resampling.
      resamples: how many.
      level: the interval's.
      shared_problems: every run judged the same problems in the same order, so they are drawn for all runs together; a
        problem's difficulty is common to the runs, and drawing it for each run anew would narrow the interval falsely.
        Otherwise problems are drawn within each run (stratified).
    """
    rng = np.random.default_rng(seed)
    if shared_problems:
        means = _resampled_means(np.mean(differences, axis=0), rng, resamples)
    else:
        sizes = np.array([len(values) for values in differences])
        means = sizes @ np.stack([_resampled_means(values, rng, resamples) for values in differences]) / sizes.sum()
    return Difference(float(np.concatenate(differences).mean()), *_interval(means, level))


def two_level_bootstrap(
    differences: Sequence[np.ndarray],
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
    shared_problems: bool = False,
) -> Difference:
    """As `pooled_bootstrap`, with the runs (training seeds) drawn with replacement first, each then counting the same.

    It speaks of seeds not run as well as of problems not seen. Over S seeds a percentile bootstrap understates the
    spread between them by about sqrt((S - 1) / S), so with very few seeds it is optimistic.
    """
    rng = np.random.default_rng(seed)
    runs = len(differences)
    counts = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples)
    if shared_problems:
        problems = len(differences[0])
        drawn = rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples)
        means = np.einsum("rp,rp->r", counts @ np.stack(differences), drawn) / (runs * problems)
    else:
        sums = np.zeros(resamples)
        for values, count in zip(differences, counts.T, strict=True):
            for times in range(1, runs + 1):
                sums += np.where(count >= times, _resampled_means(values, rng, resamples), 0.0)
        means = sums / runs
    mean = float(np.mean([values.mean() for values in differences]))
    return Difference(mean, *_interval(means, level))


def _paired(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"a pair needs the same problems on both sides, got {a.shape} and {b.shape}")
    return a - b


def _resampled_means(values: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    distinct, counts = np.unique(np.asarray(values, float), return_counts=True)
    total = counts.sum()
    return rng.multinomial(total, counts / total, size=resamples) @ distinct / total


def _interval(means: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
