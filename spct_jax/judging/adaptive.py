"""When to stop voting: a sequential test on the margin of a vote.

After m of k samples, let d be the differences in score between the leader and a rival, with mean d' and variance s^2. If the
rest is drawn alike, the final margin k d' + noise has variance s^2 (k - m) k / m (the rest itself, and what m samples
leave open about the mean), so the rival wins with chance Phi(-d' sqrt(m k / (k - m)) / s). Voting stops when these
chances, summed over the rivals, are below the error rate.

A variance from few samples is unsure, and its square root too small on average: `PRIOR_WEIGHT` samples with a variance of
`PRIOR_VARIANCE` are counted in. Both were chosen on the development split of the tiny experiment.
"""

import math
from collections.abc import Sequence

PRIOR_WEIGHT = 4.0
PRIOR_VARIANCE = 16.0
"""In squared points of the 1..10 scale."""


def decided(samples: Sequence[Sequence[float] | None], n: int, k: int, error: float) -> bool:
    """Whether the vote of all k samples is unlikely to differ from the vote of those drawn so far.

    Args:
      samples: scores of each sample in input order, None where it did not parse.
      n: responses.
      k: samples of the full vote.
      error: the chance of another verdict that is accepted.
    """
    return flip_chance(samples, n, k) <= error


def flip_chance(samples: Sequence[Sequence[float] | None], n: int, k: int) -> float:
    """The estimated chance, at most 1, that k samples name another response than those drawn so far."""
    valid = [scores for scores in samples if scores is not None]
    if n == 1 or len(samples) >= k:
        return 0.0
    if not valid:
        return 1.0
    rest = (k - len(samples)) * len(valid) / len(samples)  # as many of the rest are expected to parse as so far
    totals = [math.fsum(column) for column in zip(*valid, strict=True)]
    leader = totals.index(max(totals))  # of several the first: a rival at its side has a chance of 1/2, whoever leads
    return min(1.0, math.fsum(_overtakes(valid, leader, rival, rest) for rival in range(n) if rival != leader))


def _overtakes(valid: Sequence[Sequence[float]], leader: int, rival: int, rest: float) -> float:
    differences = [scores[leader] - scores[rival] for scores in valid]
    m = len(differences)
    mean = math.fsum(differences) / m
    squares = math.fsum((d - mean) ** 2 for d in differences)
    variance = (squares + PRIOR_WEIGHT * PRIOR_VARIANCE) / (m - 1 + PRIOR_WEIGHT)
    deviations = mean * math.sqrt(m * (m + rest) / (rest * variance))
    return 0.5 * math.erfc(deviations / math.sqrt(2))
