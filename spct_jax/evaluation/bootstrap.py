"""Bootstrap intervals: how far to trust a mean over problems, a difference of two, or one over several runs.

Intervals are percentile bootstraps [Efron and Tibshirani, 1993]. The mean of n problems drawn with replacement depends
only on how often each distinct credit is drawn, which is multinomial; credits take few values (0, 1/4, 1/3, 1/2, 1), so
2,000 resamples of 2,000 problems cost a millisecond and are drawn from exactly the usual distribution.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean difference and its bootstrap interval."""

    mean: float
    low: float
    high: float


def interval(credits: np.ndarray, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """The bootstrap interval of the mean of credits, Float[P], over problems drawn with replacement."""
    return percentiles(resampled_means(credits, np.random.default_rng(seed), resamples), level)


def paired(a: np.ndarray, b: np.ndarray, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> Difference:
    """The mean of a - b over the same P problems, with its interval over problems."""
    return pooled([_differences(a, b)], seed, resamples, level)


def pooled(
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
        means = resampled_means(np.mean(differences, axis=0), rng, resamples)
    else:
        sizes = np.array([len(values) for values in differences])
        means = sizes @ np.stack([resampled_means(values, rng, resamples) for values in differences]) / sizes.sum()
    return Difference(float(np.concatenate(differences).mean()), *percentiles(means, level))


def two_level(
    differences: Sequence[np.ndarray],
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
    shared_problems: bool = False,
) -> Difference:
    """As `pooled`, with the runs (training seeds) drawn with replacement first, each then counting the same.

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
            for number in range(1, runs + 1):
                sums += np.where(count >= number, resampled_means(values, rng, resamples), 0.0)
        means = sums / runs
    mean = float(np.mean([values.mean() for values in differences]))
    return Difference(mean, *percentiles(means, level))


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"a pair needs the same problems on both sides, got {a.shape} and {b.shape}")
    return a - b


def resampled_means(values: np.ndarray, rng: np.random.Generator, resamples: int = 2000) -> np.ndarray:
    """Float64[resamples]: the mean of as many of values, Float[P], as there are, drawn with replacement."""
    distinct, counts = np.unique(np.asarray(values, float), return_counts=True)
    total = counts.sum()
    return rng.multinomial(total, counts / total, size=resamples) @ distinct / total


def resampled_means_of_groups(
    values: np.ndarray, groups: np.ndarray, rng: np.random.Generator, resamples: int = 2000
) -> np.ndarray:
    """Float64[resamples]: the mean of values, Float[P], in as many groups, Int[P], as there are, drawn with replacement."""
    _, member = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(member, np.asarray(values, float)), np.bincount(member)
    distinct, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    drawn = rng.multinomial(len(sizes), counts / len(sizes), size=resamples)
    return drawn @ distinct[0] / (drawn @ distinct[1])


def percentiles(means: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The interval that leaves out an equal share of the resampled means, Float[resamples], on either side."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
