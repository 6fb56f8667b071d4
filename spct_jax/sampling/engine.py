"""Drawing completions for any number of prompts with one compiled program, and voting samples for comparisons.

Rows (prompts) and branches per call are fixed by the caller, never by what else is in the queue, so a prompt's tokens
depend on its own content, id and the seed only.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from spct_jax import sharding
from spct_jax.data import batches
from spct_jax.data.comparison import Comparison
from spct_jax.grm import orders
from spct_jax.models.sizes import ModelConfig
from spct_jax.sampling.generate import Completions, branch_keys, draw


@dataclasses.dataclass(frozen=True)
class Limits:
    """Shapes and stop set of every program of a run."""

    max_prompt: int
    max_completion: int
    stop_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One trunk of a vote: a comparison in one order, and the samples that share it."""

    comparison: Comparison
    order: tuple[int, ...]
    samples: tuple[int, ...]


@jax.jit
def _fold(key: jax.Array, hashes: jax.Array, samples: jax.Array) -> jax.Array:
    comparison_keys = jax.vmap(lambda h: jax.random.fold_in(key, h))(hashes)
    return branch_keys(comparison_keys, samples)


def sample_keys(key: jax.Array, comparisons: Sequence[Comparison], samples: int | np.ndarray) -> jax.Array:
    """Keys [B G]: `key` folded with each comparison's id, then with the sample's number.

    Args:
      samples: G for samples 0..G-1, or their numbers Int[B G].
    """
    hashes = np.array([orders.stable_hash(c.id) for c in comparisons], np.uint32)
    if isinstance(samples, int):
        samples = np.tile(np.arange(samples), (len(comparisons), 1))
    return _fold(key, hashes, samples)


def draw_rows(
    mesh: Mesh,
    params: Any,
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    keys: jax.Array,
    *,
    rows: int,
    temperature: float,
    limits: Limits,
    active: np.ndarray | None = None,
) -> Completions:
    """One call of the sampler on up to `rows` prompts, padded to exactly `rows`; NumPy arrays come back, padding off.

    Args:
      keys: one per branch, [B G].
      active: Bool[B G], which branches are wanted (default all).
    """
    count, group_size = keys.shape[:2]
    spare = rows - count
    tokens, lengths, last = batches.pack_prompts([*prompts, *[[0]] * spare], limits.max_prompt)
    active = np.ones((count, group_size), bool) if active is None else active
    active = np.concatenate([active, np.zeros((spare, group_size), bool)])
    keys = jnp.concatenate([keys, jnp.broadcast_to(keys[:1], (spare, group_size))]) if spare else keys
    tokens, lengths, last, keys, active = sharding.split(mesh, (tokens, lengths, last, keys, active))
    out = draw(
        params,
        config,
        tokens,
        lengths,
        last,
        keys,
        temperature,
        max_new_tokens=limits.max_completion,
        stop_ids=limits.stop_ids,
        active=active,
    )
    return jax.tree.map(lambda x: np.asarray(x)[:count], out)


def token_lists(out: Completions) -> list[list[list[int]]]:
    """[B][G] lists of tokens, terminator included."""
    return [
        [tokens[:length].tolist() for tokens, length in zip(group, lengths, strict=True)]
        for group, lengths in zip(out.tokens, out.lengths, strict=True)
    ]


def plan_rows(comparison: Comparison, k: int, order: str, seed: int) -> list[Row]:
    """Spreads k samples of a comparison over trunks, one per order; sample s has the same order whatever k is.

    A row holds at most ceil(k / n) samples, so that all rows of comparisons with n responses have one shape.
    """
    n = comparison.n
    if order == "balanced":
        table = orders.balanced_orders(n, seed, comparison.id)
        shown = [table[s % n] for s in range(k)]
    else:
        shown = [orders.random_order(n, seed, comparison.id, s) for s in range(k)]
    capacity, by_order = -(-k // n), {}
    for sample, permutation in enumerate(shown):
        by_order.setdefault(tuple(permutation), []).append(sample)
    return [
        Row(comparison, permutation, tuple(samples[i : i + capacity]))
        for permutation, samples in by_order.items()
        for i in range(0, len(samples), capacity)
    ]


def batches_of_rows(
    comparisons: Sequence[Comparison], k: int, order: str, seed: int, *, slots: int, multiple: int = 1
) -> Iterator[tuple[int, int, list[Row]]]:
    """Batches of rows that share a shape: (rows per call, branches per row, the rows), comparisons kept whole.

    Args:
      slots: about how many branches a call decodes.
      multiple: what the rows per call must be a multiple of.
    """
    for branches, members in _by_branches(comparisons, k).items():
        most = max(comparison.n for comparison in members)
        rows = -(-max(slots // max(branches, 4), most) // multiple) * multiple
        batch: list[Row] = []
        for comparison in members:
            planned = plan_rows(comparison, k, order, seed)
            if batch and len(batch) + len(planned) > rows:
                yield rows, branches, batch
                batch = []
            batch += planned
        yield rows, branches, batch


def _by_branches(comparisons: Sequence[Comparison], k: int) -> dict[int, list[Comparison]]:
    groups: dict[int, list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault(-(-k // comparison.n), []).append(comparison)
    return groups
