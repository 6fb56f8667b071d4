"""Attention in parts: a query attends to its trunk and to its branch, and the parts merge into one softmax.

Letters are those of the package: B trunks, G branches, T query time, S key time, N query heads, K key heads, H head
dim; M = N / K query heads share a key head. Queries are [.. K M T H], keys and values [.. K S H].
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

MASKED = -2.3819763e38
"""Score of an invisible key: finite, so that a row with no visible key stays free of NaN."""


BRANCH_SCORES = 2**18
"""Scores per trunk and head that exist at once when whole branches attend; they are not kept for the backward pass."""


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
    # By a loop, out of which XLA fuses nothing: on CPUs they would be taken again in every use, for every head and layer.
    sin, cos = lax.map(lambda i: lax.switch(i, (jnp.sin, jnp.cos), angles), jnp.arange(2))
    return sin, cos


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
      times: Int[T] or Int[B T], branch times; the token after the trunk has time 0.
      window: keys a query sees, itself included; None for all.
    """
    slots = jnp.arange(num_slots) - num_slots
    seen = slots >= -lengths[:, None, None]
    return seen & (True if window is None else times[..., None] - slots < window)


def causal_mask(times: jax.Array, key_times: jax.Array, window: int | None) -> jax.Array:
    """Which keys at Int[S] `key_times` queries at Int[.. T] `times` see: Bool[.. T S]."""
    distance = times[..., None] - key_times
    return (distance >= 0) & (True if window is None else distance < window)


def partial(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, cap: float) -> Partial:
    """Attention of q [.. K M T H] over the visible ones of k, v [.. K S H], not yet normalised.

    Args:
      q: queries, already scaled.
      k: keys.
      v: values.
      mask: Bool[.. T S], broadcast over K and M.
      cap: soft cap on the scores, applied before the mask; 0 for none.
    """
    scores = jnp.einsum("...KMTH,...KSH->...KMTS", q, k, preferred_element_type=jnp.float32)
    weights, peak = _weights(scores, mask[..., None, None, :, :], cap, v.dtype)
    out = jnp.einsum("...KMTS,...KSH->...KMTH", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return Partial(out, peak, jnp.sum(weights, axis=-1))


def _weights(scores: jax.Array, mask: jax.Array, cap: float, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """(exp(scores - peak) where visible, the peak [..] of each row of scores [.. S]); the values they weigh are of `dtype`."""
    scores = jnp.where(mask, softcap(scores, cap), MASKED)
    if _needs_peak(cap, dtype):
        peak = lax.stop_gradient(jnp.max(scores, axis=-1, initial=MASKED))
    else:
        peak = jnp.zeros(scores.shape[:-1], jnp.float32)
    return jnp.exp(scores - peak[..., None]), peak


def _needs_peak(cap: float, dtype: jnp.dtype) -> bool:
    """Whether exp needs its scores shifted: small capped ones neither over- nor underflow, and save the pass for a maximum.

    Not where weights are rounded to float16, which ends at exp(11).
    """
    return not 0 < cap <= 50 or dtype == jnp.float16


def nothing(shape: tuple[int, ...], cap: float, dtype: jnp.dtype) -> Partial:
    """Attention of queries of this shape [.. H] over no key at all, under that soft cap; what `combine` starts from.

    `dtype` is that of the values of the parts it is combined with.
    """
    rows = shape[:-1]
    peak = jnp.full(rows, MASKED if _needs_peak(cap, dtype) else 0.0, jnp.float32)
    return Partial(jnp.zeros(shape, jnp.float32), peak, jnp.zeros(rows, jnp.float32))


def combine(*parts: Partial) -> Partial:
    """Attention over the keys of all parts, by log-sum-exp; a part without a visible key changes no bit of it."""
    peak = functools.reduce(jnp.maximum, (part.max for part in parts))
    factors = [jnp.exp(part.max - peak) for part in parts]
    out = sum(part.out * factor[..., None] for part, factor in zip(parts, factors, strict=True))
    return Partial(out, peak, sum(part.sum * factor for part, factor in zip(parts, factors, strict=True)))


def merge(*parts: Partial) -> jax.Array:
    """One softmax over the keys of all parts: Float32[.. K M T H]."""
    whole = combine(*parts)
    # Only the padding of a trunk sees no key at all; its output is never read, but must stay finite.
    return _divide(whole.out, jnp.where(whole.sum > 0, whole.sum, 1.0)[..., None])


@jax.custom_jvp
def _divide(x: jax.Array, y: jax.Array) -> jax.Array:
    """Quotient whose derivative JAX would take by way of 1 / y**2, which float32 does not hold once |log(y)| passes 44."""
    return x / y


@_divide.defjvp
def _divide_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    ratio = _divide(x, y)
    return ratio, (dx - ratio * dy) / y


def attend_branch(
    q: jax.Array,
    trunk: tuple[jax.Array, jax.Array],
    branch: tuple[jax.Array, jax.Array],
    masks: tuple[jax.Array, jax.Array],
    cap: float,
) -> jax.Array:
    """Attention of whole branches to their trunk and to themselves, a few times of all branches after the other if it is much.

    Args:
      q: [B G K M T H].
      trunk: keys and values [B K S H], shared by the G branches: attention to them is one matrix product over all.
      branch: keys and values [B G K S H].
      masks: Bool[B T S] for the trunk and Bool[T S] for the branch.
      cap: soft cap on the scores.

    Returns:
      Float32[B G K M T H].
    """
    (B, G, K, M, T, H), S = q.shape, trunk[0].shape[-2]

    def rows(q, trunk_visible, branch_visible):
        # M outside of G: where query heads are split over devices, the rows of the product are split alike.
        folded = jnp.moveaxis(q, 1, 3).reshape(B, K, -1, H)
        scores = jnp.einsum("BKRH,BKSH->BKRS", folded, trunk[0], preferred_element_type=jnp.float32)
        weights, peak = _weights(scores.reshape(B, K, M, G, -1, S), trunk_visible[:, None, None, None], cap, trunk[1].dtype)
        out = weights.reshape(scores.shape).astype(trunk[1].dtype)
        out = jnp.einsum("BKRS,BKSH->BKRH", out, trunk[1], preferred_element_type=jnp.float32)
        on_trunk = Partial(out.reshape(*peak.shape, H), peak, jnp.sum(weights, axis=-1))
        on_trunk = Partial(*(jnp.moveaxis(x, 3, 1) for x in on_trunk))
        return merge(on_trunk, partial(q, *branch, branch_visible, cap))

    piece = branch_piece(G, S, T)
    if piece == T:
        return rows(q, *masks)
    trunk_visible, branch_visible = jnp.broadcast_to(masks[0], (B, T, S)), masks[1]
    pieces = (
        jnp.moveaxis(q.reshape(B, G, K, M, -1, piece, H), 4, 0),
        jnp.moveaxis(trunk_visible.reshape(B, -1, piece, S), 1, 0),
        branch_visible.reshape(-1, piece, T),
    )
    out = lax.map(lambda x: jax.checkpoint(rows)(*x), pieces)
    return jnp.moveaxis(out, 0, 4).reshape(q.shape)


def branch_piece(num_branches: int, trunk_slots: int, length: int) -> int:
    """Times of G whole branches of `length` tokens that attend at once; all of them where that is not much."""
    longest = max(BRANCH_SCORES // (num_branches * (trunk_slots + length)), 1)
    return max(t for t in range(1, min(longest, length) + 1) if length % t == 0)


def one_query_on_trunk(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, cap: float) -> Partial:
    """Attention of one query of each branch to a trunk of its row, as one matrix product over the branches.

    Args:
      q: [B G K M H].
      k: [B K S H].
      v: [B K S H].
      mask: Bool[B G S].
      cap: soft cap on the scores.

    Returns:
      The `Partial` with axes [B G K M], without T.
    """
    B, G, K, M, H = q.shape
    rows = jnp.moveaxis(q, 1, 2).reshape(B, K, G * M, H)
    scores = jnp.einsum("BKRH,BKSH->BKRS", rows, k, preferred_element_type=jnp.float32)
    weights, peak = _weights(scores.reshape(B, K, G, M, -1), mask[:, None, :, None, :], cap, v.dtype)
    out = jnp.einsum("BKRS,BKSH->BKRH", weights.reshape(scores.shape).astype(v.dtype), v, preferred_element_type=jnp.float32)
    part = Partial(out.reshape(B, K, G, M, H), peak, jnp.sum(weights, axis=-1))
    return Partial(*(jnp.moveaxis(x, 1, 2) for x in part))


def one_query_on_branch(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, cap: float) -> Partial:
    """Attention of one query of each branch to keys of its own, as one small matrix product per branch and key head.

    Args:
      q: [B G K M H].
      k: [B G K H S], time last, as the product over H reads it.
      v: [B G K S H].
      mask: Bool[B G S].
      cap: soft cap on the scores.

    Returns:
      The `Partial` with axes [B G K M], without T.
    """
    scores = jnp.einsum("BGKMH,BGKHS->BGKMS", q, k, preferred_element_type=jnp.float32)
    weights, peak = _weights(scores, mask[:, :, None, None], cap, v.dtype)
    out = jnp.einsum("BGKMS,BGKSH->BGKMH", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return Partial(out, peak, jnp.sum(weights, axis=-1))
