"""Length buckets of updates: each micro-batch is computed at the smallest of a few shapes that holds it.

A step's batch is packed at the run's largest shape, as without buckets. On the host its rows are ordered so that rows of like
lengths are in one micro-batch, which the program of a bucket then computes in slots in which the completions of a prompt lie
one behind the other (`spct_jax.models.places`). The preamble that prompts begin with takes none of these slots: it is
computed once for the step. At the largest shape each completion is a branch and each prompt complete, as without buckets.

What a step learns from stays the same, and so do its gradients but for the order of sums: no example is drawn more or less
often, and every step has all lengths in it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from spct_jax.data.batches import Groups
from spct_jax.training.metrics import Mean, Metrics

Bucket = tuple[int, int]
"""(tokens of a prompt without its preamble, tokens of a completion). It holds G completions that are no longer in the mean,
with a prompt that is no longer, or is longer by no more tokens than the completions leave."""


def slots(bucket: Bucket, group_size: int) -> int:
    """Slots of the prompt and of all G completions of one row."""
    return bucket[0] - 1 + group_size * bucket[1]


def holds(bucket: Bucket, group_size: int, prompts: Int[Any, "*B"], completions: Int[Any, "*B"]) -> Bool[Any, "*B"]:
    """Whether it holds rows whose prompts, and whose completions together, have these numbers of tokens."""
    return (prompts - bucket[0]).clip(0) + completions <= group_size * bucket[1]


def whole(groups: Groups) -> Bucket:
    """The shape that groups are packed at, which holds each of their prompts and completions."""
    return groups.trunk_tokens.shape[-1] + 1, groups.inputs.shape[-1] - 1


def usage(groups: Groups) -> Metrics:
    """`padding`, the share of the slots of prompts and completions that hold no token; and where prompts have a preamble,
    `preambles`, the share of their and their completions' tokens that took no slot, since the preamble is computed once.
    """
    computed = float(groups.num_slots)
    used = groups.own_lengths.sum() + groups.lengths.sum()
    found = {"padding": Mean(computed - used, computed, in_summary=True)}
    if groups.shared is not None:
        tokens = groups.trunk_lengths.sum() + groups.lengths.sum()
        found["preambles"] = Mean(tokens - used, tokens, in_summary=True)
    return found


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
      prompts: tokens of each row's prompt without its preamble.
      completions: tokens of its G completions together.
      buckets: of which one holds every row.
      group_size: G.
      micro_batches: how many equal ones; divides B.

    Returns:
      (order, the bucket of each micro-batch): row i of the batch is row order[i] of those given. Micro-batch m has rows
      m, m + micro_batches, .., as in `micro_batches`.
    """
    ordered = _by_slots(buckets, group_size)
    fits = np.array([holds(bucket, group_size, prompts, completions) for bucket in ordered])
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


def at(rows: Any, bucket: Bucket) -> Any:
    """A tree of arrays with B first whose groups are to be computed at a bucket."""

    def one(node):
        if not isinstance(node, Groups) or bucket == whole(node):
            return node
        return node.replace(shape=(bucket[0] - 1, node.lengths.shape[-1] * bucket[1]))

    return jax.tree.map(one, rows, is_leaf=lambda node: isinstance(node, Groups))


def _by_slots(buckets: Sequence[Bucket], group_size: int) -> list[Bucket]:
    return sorted(buckets, key=lambda bucket: (slots(bucket, group_size), bucket))
