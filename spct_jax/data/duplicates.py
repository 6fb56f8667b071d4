"""Records that say the same as an earlier one."""

import numpy as np


def first_of(digests: np.ndarray) -> np.ndarray:
    """Int64[N]: the number of the first record with the same digest as each; its own where it is the first."""
    _, first, which = np.unique(digests, return_index=True, return_inverse=True)
    return first[which]
