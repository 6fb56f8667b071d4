"""Causal attention within right-aligned trunks, in blocks of queries; `splash` is the same by a kernel."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from spct_jax.models.attention import causal_mask, merge, partial

QUERY_BLOCK = 256
"""Longest trunk whose scores are one block; in longer ones, at least as many queries share a slice of the keys they can see."""


MOST_BLOCKS = 4
"""Blocks of queries at most: each is compiled on its own, and four leave out three quarters of what is invisible."""


QUERY_ROWS = 32
"""Queries of a block whose scores exist at once."""


def attend_trunk(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array, window: int | None, cap: float) -> jax.Array:
    """Causal attention within right-aligned trunks, in blocks of queries that skip what they cannot see.

    Args:
      q: [B K M P H].
      k: [B K P H].
      v: [B K P H].
      lengths: Int[B], tokens in each trunk.
      window: keys a query sees, itself included; None for all.
      cap: soft cap on the scores.

    Returns:
      Float32[B K M P H]; padding slots hold finite numbers without meaning.
    """
    P = k.shape[-2]
    slots = jnp.arange(P)
    real = slots >= P - lengths[:, None]

    def rows(q, times, first, last):
        mask = causal_mask(times, slots[first:last], window) & real[:, None, first:last]
        return merge(partial(q, k[:, :, first:last], v[:, :, first:last], mask, cap))

    if P <= QUERY_BLOCK:
        return rows(q, slots, 0, P)
    outs = []
    for start, last, first in query_blocks(P, window):
        outs.append(_in_pieces(functools.partial(rows, first=first, last=last), q[..., start:last, :], slots[start:last]))
    return jnp.concatenate(outs, axis=-2)


def query_blocks(length: int, window: int | None) -> list[tuple[int, int, int]]:
    """(first query, one past the last query and key, first key) of each block of a trunk of so many slots."""
    if length <= QUERY_BLOCK:
        return [(0, length, 0)]
    size = max(QUERY_BLOCK, -(-length // (MOST_BLOCKS * QUERY_ROWS)) * QUERY_ROWS)
    return [(start, min(start + size, length), max(0, start + 1 - window) if window else 0) for start in range(0, length, size)]


def _in_pieces(rows, q: jax.Array, times: jax.Array) -> jax.Array:
    """Applies `rows(q, times)` to QUERY_ROWS queries at a time, whose scores stay in the cache and are not kept."""
    T, spare = times.shape[0], -times.shape[0] % QUERY_ROWS
    q = jnp.pad(q, [(0, 0)] * (q.ndim - 2) + [(0, spare), (0, 0)])
    times = jnp.pad(times, (0, spare), mode="edge")
    pieces = jnp.moveaxis(q.reshape(*q.shape[:-2], -1, QUERY_ROWS, q.shape[-1]), -3, 0)
    out = lax.map(lambda piece: jax.checkpoint(rows)(*piece), (pieces, times.reshape(-1, QUERY_ROWS)))
    return jnp.moveaxis(out, 0, -3).reshape(q.shape)[..., :T, :]
