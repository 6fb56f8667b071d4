"""One source as several splits, such that no prompt is in two of them."""

from collections.abc import Sequence

import numpy as np


def split_of(prompts: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    """Int64[N]: which split each record belongs to, a function of its prompt alone.

    A run's seed has no part in it, and neither have the other records: what is once for the test stays for the test.

    Args:
        prompts: Int64[N], digests of the prompts.
        fractions: of the prompts that each split gets, on average; their sum is 1.
    """
    places = prompts.astype(np.uint64) / 2.0**64
    return np.minimum(np.searchsorted(np.cumsum(fractions), places, side="right"), np.flatnonzero(fractions)[-1])
