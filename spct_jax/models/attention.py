"""Attention over keys that lie in several places, as one softmax.

A query of a branch attends to the keys of its trunk and to those of its branch, which are different arrays. Attention over each
of them gives a `Partial`, sums that are not yet normalised; `merge` makes one softmax of several. Nothing is concatenated.

Letters as in `spct_jax.models.decoder`: queries are [.. K M T H], keys and values [.. K S H].
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from spct_jax.models import products, quantized, tiles
from spct_jax.models.quantized import Quantized
from spct_jax.rounding import ceil_div

MASKED = -2.3819763e38
"""Score of an invisible key: finite, so that a query that sees no key stays free of NaN."""


class Partial(NamedTuple):
    """Attention over some of the keys, before the division by the sum of weights; float32."""

    out: Float[Array, "... T H"]
    """Sum of the values, weighted by exp(score - max)."""
    max: Float[Array, "... T"]
    """What was subtracted from the scores."""
    sum: Float[Array, "... T"]
    """Sum of the weights."""


class Standing(NamedTuple):
    """How far branches that are being decoded have come, and which trunks they are on."""

    past_lengths: Int[Array, "B G"]
    """Tokens of each branch in earlier chunks."""
    trunk_slot: Int[Array, "B G"]
    """Which of the U trunks of its row a branch belongs to."""
    trunk_lengths: tuple[Int[Array, " B"], ...]
    """Tokens in each of the U trunks."""


def softcap(x: Float[Array, "..."], cap: float) -> Float[Array, "..."]:
    """Soft cap: cap * tanh(x / cap), or x itself if cap is 0."""
    return cap * jnp.tanh(x / cap) if cap else x


def trunk_mask(
    lengths: Int[Array, " B"], num_slots: int, positions: Int[Array, " T"] | Int[Array, "#B T"], window: int | None
) -> Bool[Array, " B #T S"]:
    """Which of the last S trunk slots the tokens of branches see.

    Args:
      lengths: tokens in each trunk; trunks are right-aligned, so slot j has position j - S.
      num_slots: S, slots kept.
      positions: of the tokens in their branch; the first token after the trunk has position 0.
      window: keys a query sees, itself included; None for all.
    """
    slots = jnp.arange(num_slots) - num_slots
    seen = slots >= -lengths[:, None, None]
    return seen & (True if window is None else positions[..., None] - slots < window)


def causal_mask(positions: Int[Array, "... T"], key_positions: Int[Array, " S"], window: int | None) -> Bool[Array, "... T S"]:
    """Which keys queries at these positions see; `window` as in `trunk_mask`."""
    distance = positions[..., None] - key_positions
    return (distance >= 0) & (True if window is None else distance < window)


def partial(
    q: Float[Array, "... K M T H"],
    k: Float[Array, "... K S H"],
    v: Float[Array, "... K S H"],
    mask: Bool[Array, "... T S"],
    cap: float,
) -> Partial:
    """Attention of queries over the visible ones of some keys, not yet normalised.

    Args:
      q: queries, already scaled.
      k: keys.
      v: values.
      mask: which keys are visible, broadcast over K and M.
      cap: soft cap on the scores, applied before the mask; 0 for none.
    """
    scores = products.einsum("...KMTH,...KSH->...KMTS", q, k)
    weights, peak = _weights(scores, mask[..., None, None, :, :], cap, v.dtype)
    out = products.einsum("...KMTS,...KSH->...KMTH", weights.astype(v.dtype), v)
    return Partial(out, peak, jnp.sum(weights, axis=-1))


def _weights(
    scores: Float[Array, "... S"], mask: Bool[Array, "... S"], cap: float, dtype: jnp.dtype
) -> tuple[Float[Array, "... S"], Float[Array, "..."]]:
    """(exp(scores - peak) where visible, the peak of each query); the values they weigh are of `dtype`."""
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


def empty_partial(shape: tuple[int, ...], cap: float, dtype: jnp.dtype) -> Partial:
    """Attention over no key at all, for queries of this shape [.. H] under that soft cap; what `combine` can start from.

    `dtype` is that of the values of the partials it is combined with.
    """
    queries = shape[:-1]
    peak = jnp.full(queries, MASKED if _needs_peak(cap, dtype) else 0.0, jnp.float32)
    return Partial(jnp.zeros(shape, jnp.float32), peak, jnp.zeros(queries, jnp.float32))


def combine(*partials: Partial) -> Partial:
    """Attention over the keys of all partials, by log-sum-exp; one without a visible key changes no bit of it."""
    peak = functools.reduce(jnp.maximum, (part.max for part in partials))
    factors = [jnp.exp(part.max - peak) for part in partials]
    out = sum(part.out * factor[..., None] for part, factor in zip(partials, factors, strict=True))
    return Partial(out, peak, sum(part.sum * factor for part, factor in zip(partials, factors, strict=True)))


def merge(*partials: Partial) -> Float[Array, "... H"]:
    """One softmax over the keys of all partials; float32."""
    combined = combine(*partials)
    # Only the padding of a trunk sees no key at all; its output is never read, but must stay finite.
    return _divide(combined.out, jnp.where(combined.sum > 0, combined.sum, 1.0)[..., None])


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
    q: Float[Array, "B G K M T H"],
    trunk: tuple[Float[Array, "B K S H"], Float[Array, "B K S H"]],
    branch: tuple[Float[Array, "B G K T H"], Float[Array, "B G K T H"]],
    masks: tuple[Bool[Array, " B #T S"], Bool[Array, "#B T T"]],
    cap: float,
) -> Float[Array, "B G K M T H"]:
    """Attention of branches, at all their positions, to their trunk and to themselves.

    Where there are many scores, it is a few positions of all branches after the other.

    Args:
      q: queries, already scaled.
      trunk: its keys and values, shared by the G branches: attention to them is one matrix product over all.
      branch: keys and values of the branches.
      masks: for the trunk and for the branch.
      cap: soft cap on the scores.

    Returns:
      Float32.
    """
    (B, G, K, M, T, H), S = q.shape, trunk[0].shape[-2]

    def attend(q, trunk_visible, branch_visible):
        # M outside of G: where query heads are split over devices, the rows of the product are split alike.
        folded = jnp.moveaxis(q, 1, 3).reshape(B, K, -1, H)
        scores = products.einsum("BKRH,BKSH->BKRS", folded, trunk[0])
        each = scores.reshape(B, K, M, G, q.shape[-2], S)
        weights, peak = _weights(each, trunk_visible[:, None, None, None], cap, trunk[1].dtype)
        out = weights.reshape(scores.shape).astype(trunk[1].dtype)
        out = products.einsum("BKRS,BKSH->BKRH", out, trunk[1])
        on_trunk = Partial(out.reshape(*peak.shape, H), peak, jnp.sum(weights, axis=-1))
        on_trunk = Partial(*(jnp.moveaxis(x, 3, 1) for x in on_trunk))
        return merge(on_trunk, partial(q, *branch, branch_visible[:, None], cap))

    count, block = branch_blocks(G, S, T)
    if count == 1:
        return attend(q, *masks)

    def split(x, axis):
        x = jnp.pad(x, [(0, count * block - T) if i == axis % x.ndim else (0, 0) for i in range(x.ndim)])
        return jnp.moveaxis(x.reshape(*x.shape[:axis], count, block, x.shape[-1]), axis - 1, 0)

    trunk_visible = jnp.broadcast_to(masks[0], (B, T, S))
    blocks = split(q, -2), split(trunk_visible, -2), split(masks[1], -2)
    out = jnp.moveaxis(lax.map(lambda x: jax.checkpoint(attend)(*x), blocks), 0, 4)
    return out.reshape(*q.shape[:-2], -1, H)[..., :T, :]


def branch_blocks(num_branches: int, trunk_slots: int, length: int) -> tuple[int, int]:
    """(how many blocks, positions of each) in which G branches of `length` tokens attend one after the other.

    Where that is not much (`Tiles.branch_scores`), they all attend at once.
    """
    longest = max(tiles.here().branch_scores // (num_branches * (trunk_slots + length)), 1)
    count = ceil_div(length, longest)
    return count, ceil_div(length, count)


def one_query_on_trunk(
    q: Float[Array, "B G K M H"],
    k: Float[Array, "B K S H"] | Quantized,
    v: Float[Array, "B K S H"] | Quantized,
    mask: Bool[Array, "B G S"],
    cap: float,
) -> Partial:
    """Attention of one query of each branch to a trunk, as one matrix product over the branches.

    Args:
      q: queries, already scaled.
      k: keys of the trunk.
      v: values of the trunk.
      mask: which keys are visible.
      cap: soft cap on the scores.

    Returns:
      The `Partial` with axes [B G K M], without T.
    """
    B, G, K, M, H = q.shape
    folded = jnp.moveaxis(q, 1, 2).reshape(B, K, G * M, H)
    scores = quantized.scores("BKRH,BKSH->BKRS", folded, k, axis=-1)
    weights, peak = _weights(scores.reshape(B, K, G, M, -1), mask[:, None, :, None, :], cap, q.dtype)
    out = quantized.weighed("BKRS,BKSH->BKRH", weights.reshape(scores.shape), v, q.dtype)
    part = Partial(out.reshape(B, K, G, M, H), peak, jnp.sum(weights, axis=-1))
    return Partial(*(jnp.moveaxis(x, 1, 2) for x in part))


def one_query_on_branch(
    q: Float[Array, "B G K M H"],
    k: Float[Array, "B G K H S"] | Quantized,
    v: Float[Array, "B G K S H"] | Quantized,
    mask: Bool[Array, "B G S"],
    cap: float,
) -> Partial:
    """Attention of one query of each branch to keys of its own, as one small matrix product per branch and kv head.

    Args:
      q: queries, already scaled.
      k: keys, the axis S last, as the product over H reads them.
      v: values.
      mask: which keys are visible.
      cap: soft cap on the scores.

    Returns:
      The `Partial` with axes [B G K M], without T.
    """
    scores = quantized.scores("BGKMH,BGKHS->BGKMS", q, k, axis=-2)
    weights, peak = _weights(scores, mask[:, :, None, None], cap, q.dtype)
    out = quantized.weighed("BGKMS,BGKSH->BGKMH", weights, v, q.dtype)
    return Partial(out, peak, jnp.sum(weights, axis=-1))
