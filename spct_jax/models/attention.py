"""Attention in parts: a query attends to its trunk and to its branch, and the parts merge into one softmax.

Letters are those of the package: B trunks, G branches, T query time, S key time, N query heads, K key heads, H head
dim; M = N / K query heads share a key head. Queries are [.. K M T H], keys and values [.. K S H].
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

MASKED = -2.3819763e38
"""Score of an invisible key: finite, so that a row with no visible key stays free of NaN."""


class Partial(NamedTuple):
    """Attention over some of the keys, before the division by the sum of weights; float32.

    Attributes:
      out: [.. K M T H], weighted sum of the values.
      max: [.. K M T], what was subtracted from the scores.
      sum: [.. K M T], sum of the weights.
    """

    out: jax.Array
    max: jax.Array
    sum: jax.Array


def rope_tables(positions: jax.Array, head_dim: int, base: float, scale: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Sines and cosines, both Float32[.. T H/2], of Int[.. T] positions divided by `scale`."""
    timescale = base ** (jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions[..., None].astype(jnp.float32) / timescale / scale
    return jnp.sin(angles), jnp.cos(angles)


def rope(x: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates x [.. T H] by `tables`, broadcast against it; the halves of H are paired, the dtype is kept."""
    sin, cos = (table[..., None, :] for table in tables)
    halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    sign = jnp.array([[-1.0], [1.0]])
    return (halves * cos + halves[..., ::-1, :] * (sign * sin)).reshape(x.shape).astype(x.dtype)


def softcap(x: jax.Array, cap: float) -> jax.Array:
    """Soft cap: cap * tanh(x / cap), or x itself if cap is 0."""
    return cap * jnp.tanh(x / cap) if cap else x


def trunk_mask(lengths: jax.Array, num_slots: int, times: jax.Array, window: int | None) -> jax.Array:
    """Which of the last `num_slots` trunk slots branch tokens see: Bool[B T S].

    Args:
      lengths: Int[B], tokens in each trunk; trunks are right-aligned, so slot j of S stands at time j - S.
      num_slots: S, slots kept.
      times: Int[T], branch times; the token after the trunk has time 0.
      window: keys a query sees, itself included; None for all.
    """
    slots = jnp.arange(num_slots) - num_slots
    seen = slots >= -lengths[:, None, None]
    return seen & (True if window is None else times[:, None] - slots < window)


def causal_mask(times: jax.Array, key_times: jax.Array, window: int | None) -> jax.Array:
    """Which keys at Int[S] `key_times` queries at Int[T] `times` see: Bool[T S]."""
    distance = times[:, None] - key_times
    return (distance >= 0) & (True if window is None else distance < window)


def partial(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, cap: float, by_vector: bool = False) -> Partial:
    """Attention of q [.. K M T H] over the visible ones of k, v [.. K S H], not yet normalised.

    Args:
      q: queries, already scaled.
      k: keys.
      v: values.
      mask: Bool[.. T S], broadcast over K and M.
      cap: soft cap on the scores, applied before the mask; 0 for none.
      by_vector: multiply and add instead of a matrix product, which is faster on keys of its own for one query.
    """
    if by_vector:
        scores = jnp.sum(q * k[..., None, :, :], axis=-1, dtype=jnp.float32)[..., None, :]
    else:
        scores = jnp.einsum("...KMTH,...KSH->...KMTS", q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[..., None, None, :, :], softcap(scores, cap), MASKED)
    if 0 < cap <= 60:
        # Capped scores can neither overflow exp nor underflow it, so the pass over them for a maximum is saved.
        peak = jnp.zeros(scores.shape[:-1], jnp.float32)
    else:
        peak = lax.stop_gradient(jnp.max(scores, axis=-1, initial=MASKED))
    weights = jnp.exp(scores - peak[..., None])
    if by_vector:
        weighted = weights[..., 0, :, None].astype(v.dtype) * v[..., None, :, :]
        out = jnp.sum(weighted, axis=-2, dtype=jnp.float32)[..., None, :]
    else:
        out = jnp.einsum("...KMTS,...KSH->...KMTH", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return Partial(out, peak, jnp.sum(weights, axis=-1))


def merge(*parts: Partial) -> jax.Array:
    """One softmax over the keys of all parts, by log-sum-exp: Float32[.. K M T H]."""
    peak = parts[0].max
    for part in parts[1:]:
        peak = jnp.maximum(peak, part.max)
    factors = [jnp.exp(part.max - peak) for part in parts]
    total = sum(part.sum * factor for part, factor in zip(parts, factors, strict=True))
    out = sum(part.out * factor[..., None] for part, factor in zip(parts, factors, strict=True))
    # Only the padding of a trunk sees no key at all; its output is never read, but must stay finite.
    return out / jnp.where(total > 0, total, 1.0)[..., None]


def attend_trunk(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array, window: int | None, cap: float) -> jax.Array:
    """Causal attention within right-aligned trunks.

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
    num_slots = k.shape[-2]
    slots = jnp.arange(num_slots)
    mask = causal_mask(slots, slots, window) & (slots >= num_slots - lengths[:, None])[:, None, :]
    return merge(partial(q, k, v, mask, cap))


def attend_branch(
    q: jax.Array,
    trunk: tuple[jax.Array, jax.Array],
    branch: tuple[jax.Array, jax.Array],
    masks: tuple[jax.Array, jax.Array],
    cap: float,
) -> jax.Array:
    """Attention of branch tokens to their trunk and their own past.

    Args:
      q: [B G K M T H].
      trunk: keys and values [B K S H], shared by the G branches: attention to them is one matrix product over all.
      branch: keys and values [B G K S H].
      masks: Bool[B T S] for the trunk and Bool[T S] for the branch.
      cap: soft cap on the scores.

    Returns:
      Float32[B G K M T H].
    """
    trunk_visible, branch_visible = masks
    by_vector = q.shape[-2] == 1

    def one_branch(q, k, v, trunk, trunk_visible):
        return merge(partial(q, *trunk, trunk_visible, cap), partial(q, k, v, branch_visible, cap, by_vector))

    # Mapped over B outside G, every array keeps its order of axes; G outside B would copy the branches' keys.
    branches = jax.vmap(one_branch, in_axes=(0, 0, 0, None, None))
    return jax.vmap(branches)(q, *branch, trunk, trunk_visible)
