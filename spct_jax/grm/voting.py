"""Many verdicts into one. Samples are in input order; None stands for a completion that did not parse."""

import math
from collections.abc import Sequence

Sample = Sequence[float] | None


def sum_vote(samples: Sequence[Sequence[int] | None], n: int) -> tuple[int, ...] | None:
    """Each response's scores summed over the samples that parsed: Eq. 14. None when none did.

    Samples that choose, whose scores are 1 for one response and 0 for the others, are counted so: Eq. 13.
    """
    valid = _valid(samples, n)
    return tuple(map(sum, zip(*valid, strict=True))) if valid else None


def mean_vote(samples: Sequence[Sample], n: int) -> tuple[float, ...] | None:
    """Each response's mean score over the samples that parsed: Eq. 12. None when none did."""
    valid = _valid(samples, n)
    return tuple(math.fsum(column) / len(valid) for column in zip(*valid, strict=True)) if valid else None


def guided_vote(
    samples: Sequence[Sequence[int] | None], meta: Sequence[float | None], k_meta: int, n: int
) -> tuple[int, ...] | None:
    """Eq. 14 over the k_meta samples that a meta reward model trusts most.

    Args:
      samples: scores of each sample.
      meta: meta reward of each sample; one that is None or NaN ranks last.
      k_meta: how many of the samples that parsed are kept; all of them when fewer parsed. Ties keep the earlier one.
      n: the number of responses.
    """
    return sum_vote([samples[index] for index in trusted(samples, meta, k_meta)], n)


def trusted(samples: Sequence[Sample], meta: Sequence[float | None], k_meta: int) -> list[int]:
    """The indices of the samples that a guided vote keeps, the most trusted first; arguments and ties as in `guided_vote`."""
    if k_meta < 1:
        raise ValueError(f"k_meta is {k_meta}, but at least one sample must be kept")
    if len(meta) != len(samples):
        raise ValueError(f"{len(meta)} meta rewards for {len(samples)} samples")
    ranks = [-math.inf if value is None or math.isnan(value) else value for value in meta]
    parsed = [index for index, sample in enumerate(samples) if sample is not None]
    return sorted(parsed, key=ranks.__getitem__, reverse=True)[:k_meta]


def rounded(totals: Sequence[float] | None) -> tuple[float, ...] | None:
    """Sums of scores that are no integers, to nine decimals, as many as a score is read with: equal sums are equal floats."""
    return None if totals is None else tuple(round(total, 9) for total in totals)


def expected_credit(totals: Sequence[float] | None, best: int, n: int) -> float:
    """The chance that a random choice among the top responses is the best one.

    That is 1/t when `best` is one of t top responses and 0 otherwise, the expectation of the paper's rule, which
    breaks ties by position after a random shuffle. Without totals all n responses are tied.
    """
    if totals is None:
        return 1.0 / n
    top = winners(totals)
    return (best in top) / len(top)


def winners(totals: Sequence[float] | None) -> tuple[int, ...]:
    """The indices of all responses that share the highest total, ascending; none without totals."""
    return () if totals is None else tuple(index for index, total in enumerate(totals) if total == max(totals))


def is_tie(totals: Sequence[float] | None) -> bool:
    """Whether several responses share the highest total; without totals, no."""
    return len(winners(totals)) > 1


def _valid(samples: Sequence[Sample], n: int) -> list[Sequence[float]]:
    valid = [sample for sample in samples if sample is not None]
    if not all(len(sample) == n for sample in valid):
        raise ValueError(f"a sample without exactly {n} scores")
    return valid
