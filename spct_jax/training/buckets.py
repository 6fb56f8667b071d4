"""Length buckets of updates: each micro-batch is computed at the smallest of a few shapes that holds it.

A step's batch is packed at the run's largest shape, as without buckets. On the host its rows are ordered so that rows of like
lengths are in one micro-batch; the program then looks at the lengths of a micro-batch and cuts its arrays to the bucket. What
a step learns from stays the same, and so do its gradients but for the order of sums: no example is drawn more or less often,
and every step has all lengths in it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from spct_jax.data.batches import Groups
from spct_jax.data.config import DataConfig
from spct_jax.training.metrics import Mean

Bucket = tuple[int, int]
"""(longest prompt, longest completion) in tokens."""


def table(data: DataConfig) -> tuple[Bucket, ...]:
    """The buckets of a run, the one that holds everything among them; () where the config has none, for a single shape."""
    return (*data.buckets, (data.max_prompt, data.max_completion)) if data.buckets else ()


def slots(bucket: Bucket, group_size: int) -> int:
    """Slots of the trunk and of all branches of one row."""
    return bucket[0] - 1 + group_size * bucket[1]


def padding(groups: Groups) -> Mean:
    """The share of the slots of trunks and branches that hold no token."""
    computed = float(groups.trunk_tokens.size + groups.targets.size)
    return Mean(computed - (groups.trunk_lengths.sum() + groups.lengths.sum()), computed, in_summary=True)


def arrange(
    prompts: Int[np.ndarray, " B"],
    completions: Int[np.ndarray, " B"],
    buckets: Sequence[Bucket],
    group_size: int,
    micro_batches: int,
) -> tuple[Int[np.ndarray, " B"], list[Bucket]]:
    """Which row of a batch goes where, so that micro-batches have few slots.

    The most expensive row that is left begins a micro-batch, at its own bucket; the next most expensive that fit in there fill
    it up. If too few are left that fit, the micro-batch takes the next larger bucket.

    Args:
      prompts: tokens of each row's prompt.
      completions: tokens of each row's longest completion.
      buckets: of which one holds every row.
      group_size: G.
      micro_batches: how many equal ones; divides B.

    Returns:
      (order, the bucket of each micro-batch): row i of the batch is row order[i] of those given. Micro-batch m has rows
      m, m + micro_batches, .., as in `accumulation`.
    """
    ordered = _by_slots(buckets, group_size)
    fits = np.array([(prompts <= prompt) & (completions <= completion) for prompt, completion in ordered])
    own = fits.argmax(0)
    left, rows = np.argsort(-own, kind="stable"), len(prompts) // micro_batches
    parts, chosen = [], []
    for _ in range(micro_batches):
        bucket = next(k for k in range(own[left[0]], len(ordered)) if fits[k, left[0]] and fits[k, left].sum() >= rows)
        taken = np.flatnonzero(fits[bucket, left])[:rows]
        parts.append(left[taken])
        chosen.append(ordered[bucket])
        left = np.delete(left, taken)
    return np.stack(parts, axis=1).reshape(-1), chosen


def at_smallest(function: Callable, buckets: Sequence[Bucket]) -> Callable:
    """`function(params, batch)`, traced for each bucket; only the one with the fewest slots that holds the batch is executed.

    What it returns must have the same shapes for all buckets. Without buckets it is `function` itself.
    """
    if not buckets:
        return function

    def chosen(params, batch):
        groups = next(node for node in jax.tree.leaves(batch, is_leaf=_is_groups) if _is_groups(node))
        prompt, completion = groups.trunk_lengths.max() + 1, groups.lengths.max()
        ordered = _by_slots(buckets, groups.lengths.shape[1])
        holds = jnp.stack([(prompt <= bucket[0]) & (completion <= bucket[1]) for bucket in ordered])
        return lax.switch(jnp.argmax(holds), [functools.partial(at, bucket) for bucket in ordered], params, batch)

    def at(bucket, params, batch):
        cut = jax.tree.map(lambda node: node.cut(*bucket) if _can_cut(node) else node, batch, is_leaf=_can_cut)
        return function(params, cut)

    return chosen


def lengthen(x: Float[Array, "B G t"], T: int) -> Float[Array, "B G T"]:
    """Appends zeros in time, so that results of all buckets have one shape."""
    return jnp.pad(x, [(0, 0), (0, 0), (0, T - x.shape[-1])])


def _is_groups(node: Any) -> bool:
    return isinstance(node, Groups)


def _can_cut(node: Any) -> bool:
    return hasattr(node, "cut")


def _by_slots(buckets: Sequence[Bucket], group_size: int) -> list[Bucket]:
    return sorted(buckets, key=lambda bucket: (slots(bucket, group_size), bucket))
