"""Causal attention within right-aligned trunks, by XLA; `spct_jax.models.splash` is the same by a kernel.

A long trunk is computed in blocks of queries, each with the keys that some query of the block can see. Letters as in
`spct_jax.models.decoder`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from spct_jax.models import tiles
from spct_jax.models.attention import causal_mask, merge, partial
from spct_jax.rounding import ceil_div

QUERY_BLOCK = 256
"""A trunk with no more scores than the square of this is one block; the blocks of others have at least as many queries."""

MOST_BLOCKS = 4
"""Blocks at most: each is compiled on its own, and four leave out three quarters of what is invisible."""


class Block(NamedTuple):
    """Queries that are computed together and the keys that some of them can see, as the slots of a trunk."""

    queries: range
    keys: range

    @property
    def scores(self) -> int:
        """Pairs of a query and a key, those included that the mask hides."""
        return len(self.queries) * len(self.keys)


def attend_trunk(
    q: Float[Array, "B K M P H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    lengths: Int[Array, " B"],
    window: int | None,
    cap: float,
) -> Float[Array, "B K M P H"]:
    """Causal attention within right-aligned trunks, in blocks of queries that skip what they cannot see.

    Args:
      q: queries of the last P slots, already scaled; P is S where trunks have no prefix.
      k: keys.
      v: values.
      lengths: tokens in each trunk, prefix included.
      window: keys a query sees, itself included; None for all.
      cap: soft cap on the scores, 0 for none.

    Returns:
      Float32; padding slots hold finite numbers without meaning.
    """
    P, S = q.shape[-2], k.shape[-2]
    prefix = S - P
    slots = jnp.arange(S)
    real = slots >= S - lengths[:, None]

    def attend(q, positions, keys):
        seen = slice(keys.start, keys.stop)
        mask = causal_mask(positions, slots[seen], window) & real[:, None, seen]
        return merge(partial(q, k[:, :, seen], v[:, :, seen], mask, cap))

    if is_one_block(P, prefix):
        return attend(q, slots[prefix:], range(S))
    outs = []
    for queries, keys in query_blocks(P, window, prefix):
        own = q[..., queries.start - prefix : queries.stop - prefix, :]
        outs.append(_a_few_at_once(functools.partial(attend, keys=keys), own, slots[queries.start : queries.stop]))
    return jnp.concatenate(outs, axis=-2)


def is_one_block(length: int, prefix: int = 0) -> bool:
    """Whether `length` slots behind a prefix attend all at once, and their scores are kept for the backward pass."""
    return length * (prefix + length) <= QUERY_BLOCK**2


def query_blocks(length: int, window: int | None, prefix: int = 0) -> list[Block]:
    """The blocks of queries of `length` slots behind a prefix; slots are counted from the prefix's first."""
    slots = prefix + length
    if is_one_block(length, prefix):
        return [Block(range(prefix, slots), range(slots))]
    piece = tiles.here().queries
    size = max(QUERY_BLOCK, ceil_div(length, MOST_BLOCKS * piece) * piece)
    blocks = []
    for start in range(prefix, slots, size):
        stop = min(start + size, slots)
        blocks.append(Block(range(start, stop), range(max(0, start + 1 - window) if window else 0, stop)))
    return blocks


def _a_few_at_once(attend, q: Float[Array, "B K M T H"], positions: Int[Array, " T"]) -> Float[Array, "B K M T H"]:
    """Applies `attend(q, positions)` to `Tiles.queries` queries at a time; their scores stay near and are not kept."""
    piece = tiles.here().queries
    T, spare = positions.shape[0], -positions.shape[0] % piece
    q = jnp.pad(q, [(0, 0)] * (q.ndim - 2) + [(0, spare), (0, 0)])
    positions = jnp.pad(positions, (0, spare), mode="edge")
    pieces = jnp.moveaxis(q.reshape(*q.shape[:-2], -1, piece, q.shape[-1]), -3, 0)
    out = lax.map(lambda each: jax.checkpoint(attend)(*each), (pieces, positions.reshape(-1, piece)))
    return jnp.moveaxis(out, 0, -3).reshape(q.shape)[..., :T, :]
