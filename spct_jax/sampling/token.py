"""One token: truncation of the distribution, and a draw from it by its inverse cumulative distribution function."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from spct_jax.models import logprobs
from spct_jax.sampling.params import SamplingParams
from spct_jax.sharding import logical


def sample_token(
    logits: Float[Array, "N V"], keys: Key[Array, " N"], positions: Int[Array, " N"], sampling: SamplingParams
) -> tuple[Int[Array, " N"], Float[Array, " N"]]:
    """Draws the next token of each of N branches.

    Args:
      logits: capped.
      keys: one per branch.
      positions: t, how many tokens of its completion a branch has; the token is drawn with `fold_in(key, t)`.
      sampling: how it is drawn.

    Returns:
      (tokens Int32[N], their log-probabilities Float32[N] under the distribution they were drawn from).
    """

    def uniform(key, t):
        return jax.random.uniform(jax.random.fold_in(key, t), dtype=jnp.float32)

    scaled = truncate(logits / logprobs.divisor(sampling.temperature), sampling.top_k, sampling.top_p)
    peak = jnp.max(scaled, axis=-1, keepdims=True)
    weights = jnp.exp(scaled - peak)
    token = lax.cond(
        sampling.temperature >= logprobs.GREEDY_BELOW,
        lambda: inverse_cdf(weights, jax.vmap(uniform)(keys, positions)),
        lambda: jnp.argmax(scaled, axis=-1),
    ).astype(jnp.int32)
    chosen = jnp.take_along_axis(scaled, token[..., None], axis=-1) - peak
    return token, chosen[..., 0] - jnp.log(jnp.sum(weights, axis=-1))


def truncate(logits: Float[Array, "*rows V"], top_k: int, top_p: float) -> Float[Array, "*rows V"]:
    """Logits with all but the likeliest tokens at minus infinity; equally likely tokens are kept or dropped together.

    Args:
      logits: already divided by the temperature.
      top_k: how many are kept; 0 for all.
      top_p: the total probability that those kept must reach, among the top_k; 1 for all.
    """
    V = logits.shape[-1]
    if not 0 < top_k < V and top_p >= 1:
        return logits
    kept = lax.top_k(logits, top_k if 0 < top_k < V else V)[0]
    if top_p < 1:
        weights = jax.nn.softmax(kept, axis=-1)
        before = jnp.cumsum(weights, axis=-1) - weights
        kept = jnp.where(before < top_p, kept, jnp.inf)
    return jnp.where(logits >= jnp.min(kept, axis=-1, keepdims=True), logits, -jnp.inf)


def inverse_cdf(weights: Float[Array, "*rows V"], u: Float[Array, "*rows"]) -> Int[Array, "*rows"]:
    """The index at which the cumulative sum of the weights passes u times their total.

    Works in two steps over about sqrt(V) numbers each, since cumulative sums are slow and plain sums are not. Never returns an
    index of zero weight, whatever u in [0, 1) is and however sums are rounded.
    """
    V = weights.shape[-1]
    width = 1 << (max(V - 1, 1).bit_length() + 1) // 2
    blocks = jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, -V % width)])
    blocks = blocks.reshape(*weights.shape[:-1], -1, width)
    sums = blocks.sum(-1)
    if logical.platform() == "tpu":
        # As one sum of sums, XLA would add up all weights once more.
        sums = lax.optimization_barrier(sums)
    block, before = _first_past(sums, u * sums.sum(-1))
    inside = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    return block * width + _first_past(inside, u * sums.sum(-1) - before)[0]


def _first_past(weights: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(first index of positive weight whose cumulative sum exceeds `target`, else the last positive one; the sum before it)."""
    sums = jnp.cumsum(weights, axis=-1)
    positive = weights > 0
    past = positive & (sums > target[..., None])
    last = weights.shape[-1] - 1 - jnp.argmax(positive[..., ::-1], axis=-1)
    index = jnp.where(past.any(-1), jnp.argmax(past, axis=-1), last)
    before = jnp.take_along_axis(sums - weights, index[..., None], axis=-1)[..., 0]
    return index, before
