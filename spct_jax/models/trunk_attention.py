"""Causal attention within right-aligned trunks, by XLA; `spct_jax.models.splash` is the same by a kernel.

A long trunk is computed in blocks of queries, each with the keys that some query of the block can see. Letters as in
`spct_jax.models.decoder`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from spct_jax.models import tiles
from spct_jax.models.attention import causal_mask, merge, partial
from spct_jax.rounding import ceil_div

QUERY_BLOCK = 256
"""Longest trunk that is one block; blocks of longer ones have at least as many queries."""


MOST_BLOCKS = 4
"""Blocks at most: each is compiled on its own, and four leave out three quarters of what is invisible."""


def attend_trunk(
    q: Float[Array, "B K M P H"],
    k: Float[Array, "B K P H"],
    v: Float[Array, "B K P H"],
    lengths: Int[Array, " B"],
    window: int | None,
    cap: float,
) -> Float[Array, "B K M P H"]:
    """Causal attention within right-aligned trunks, in blocks of queries that skip what they cannot see.

    Args:
      q: queries, already scaled.
      k: keys.
      v: values.
      lengths: tokens in each trunk.
      window: keys a query sees, itself included; None for all.
      cap: soft cap on the scores, 0 for none.

    Returns:
      Float32; padding slots hold finite numbers without meaning.
    """
    P = k.shape[-2]
    slots = jnp.arange(P)
    real = slots >= P - lengths[:, None]

    def attend(q, positions, first, last):
        mask = causal_mask(positions, slots[first:last], window) & real[:, None, first:last]
        return merge(partial(q, k[:, :, first:last], v[:, :, first:last], mask, cap))

    if P <= QUERY_BLOCK:
        return attend(q, slots, 0, P)
    outs = []
    for start, last, first in query_blocks(P, window):
        outs.append(_a_few_at_once(functools.partial(attend, first=first, last=last), q[..., start:last, :], slots[start:last]))
    return jnp.concatenate(outs, axis=-2)


def query_blocks(length: int, window: int | None) -> list[tuple[int, int, int]]:
    """(first query, one past the last query and key, first key) of each block of a trunk of so many slots."""
    if length <= QUERY_BLOCK:
        return [(0, length, 0)]
    piece = tiles.here().queries
    size = max(QUERY_BLOCK, ceil_div(length, MOST_BLOCKS * piece) * piece)
    return [(start, min(start + size, length), max(0, start + 1 - window) if window else 0) for start in range(0, length, size)]


def _a_few_at_once(attend, q: Float[Array, "B K M T H"], positions: Int[Array, " T"]) -> Float[Array, "B K M T H"]:
    """Applies `attend(q, positions)` to `Tiles.queries` queries at a time; their scores stay near and are not kept."""
    piece = tiles.here().queries
    T, spare = positions.shape[0], -positions.shape[0] % piece
    q = jnp.pad(q, [(0, 0)] * (q.ndim - 2) + [(0, spare), (0, 0)])
    positions = jnp.pad(positions, (0, spare), mode="edge")
    pieces = jnp.moveaxis(q.reshape(*q.shape[:-2], -1, piece, q.shape[-1]), -3, 0)
    out = lax.map(lambda each: jax.checkpoint(attend)(*each), (pieces, positions.reshape(-1, piece)))
    return jnp.moveaxis(out, 0, -3).reshape(q.shape)[..., :T, :]
