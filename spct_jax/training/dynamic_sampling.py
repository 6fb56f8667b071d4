"""Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2): a step draws on until enough of its groups can teach something.

Where all rewards of a group are equal its advantages are zero. So a step may draw more prompts than it learns from, in the
order of the data, and learns from the first groups with unequal rewards. Which prompts it may draw follows from the step, how
many it draws and which it learns from from their rewards alone.
"""

import math

import numpy as np
from jaxtyping import Bool, Int

from spct_jax.rounding import ceil_div


def next_draw(signal: Bool[np.ndarray, " drawn"], batch_size: int, most: int) -> int:
    """How many prompts are drawn next; 0 once `batch_size` of the groups drawn have signal or `most` are drawn.

    As many as will do in five cases of six, if groups have signal as often as so far: those that are missing and a standard
    deviation more, since each further draw takes as long as its longest completion.
    """
    found, drawn = int(signal.sum()), len(signal)
    missing = max(batch_size - found, 0)
    return min(most - drawn, ceil_div((missing + math.isqrt(missing)) * drawn, max(found, 1)))


def chosen(signal: Bool[np.ndarray, " drawn"], batch_size: int) -> Int[np.ndarray, " B"]:
    """Which groups a step learns from, ascending: the first with signal and, where these are too few, the first without."""
    return np.sort(np.argsort(~signal, kind="stable")[:batch_size])
