"""Log-probabilities of given completions; letters as in `spct_jax.models.decoder`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from spct_jax.models import decoder, quantized, tiles, vocabulary_blocks
from spct_jax.models.config import ModelConfig
from spct_jax.models.places import Places
from spct_jax.rounding import ceil_div
from spct_jax.sharding import logical

GREEDY_BELOW = 1e-5
"""A temperature below this counts as 0: logits divided by it would overflow, or all but the largest would be alike."""


def divisor(temperature: Float[Array, ""] | float) -> Float[Array, ""]:
    """What logits are divided by: the temperature, or 1 where it is so low that sampling is greedy."""
    return jnp.where(temperature < GREEDY_BELOW, 1.0, temperature)


def token_logprobs(
    params: decoder.Params,
    config: ModelConfig,
    trunk: decoder.Trunk | decoder.Prompts,
    inputs: Int[Array, "B G T"],
    targets: Int[Array, "B G T"],
    *,
    places: Places | None = None,
    temperature: Float[Array, ""] | float = 1.0,
) -> tuple[Float[Array, "B G T"], Float[Array, "B G T"]]:
    """Log-probabilities of the branches' targets under softmax(logits / temperature), as the sampler gives them, and entropies.

    Args:
      params: parameters, see `spct_jax.models.decoder`.
      config: the architecture.
      trunk: as of `decoder.extend`.
      inputs: [prompt's last token, c_0, .., c_{T-2}].
      targets: [c_0, .., c_{T-1}].
      places: of completions that lie one behind the other, see `decoder.extend`.
      temperature: divides the capped logits; below `GREEDY_BELOW` they are divided by 1.

    Returns:
      (log-probabilities, the entropy of the distribution at each of them), float32.
    """
    hidden = decoder.extend(params, config, trunk, inputs, places)
    shared = (decoder.output_table(params, config), jnp.asarray(divisor(temperature), jnp.float32))
    # What depends on the platform is chosen here: inside of `shard_map_batch`, it cannot be told any more.
    if vocabulary_blocks.are_used(config) and not quantized.is_quantized(shared[0]):
        compute = functools.partial(_by_vocabulary, config, tiles.here().logits)
    elif inputs.shape[-1] <= config.time_chunk:
        return _at_once(config, _chosen(), shared, hidden, targets)
    else:
        compute = functools.partial(_by_time, config, _chosen())
    return logical.shard_map_batch(compute, shared, hidden, targets)


def _chosen():
    """How the program being traced takes the logits of targets, given logits and targets."""
    if logical.platform() != "tpu":
        return lambda logits, targets: jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    # The gradient of an index would be scattered into zeros, as large as the logits; that of a comparison is fused with others.
    return lambda logits, targets: jnp.where(jnp.arange(logits.shape[-1]) == targets[..., None], logits, 0).sum(-1)


def _at_once(config, chosen, shared, hidden, targets):
    table, temperature = shared
    scaled = decoder.unembed_with(table, config, logical.constrain(hidden, "batch")) / temperature
    norm = jax.nn.logsumexp(scaled, axis=-1)
    logprobs = chosen(scaled, targets) - norm
    return logprobs, norm - jnp.sum(jnp.exp(scaled - norm[..., None]) * scaled, axis=-1)


def _by_time(config, chosen, shared, hidden, targets):
    """`time_chunk` positions of all branches after the other."""
    T, size = targets.shape[-1], config.time_chunk
    chunks = ceil_div(T, size)

    def split(x):
        x = jnp.pad(x, [(0, chunks * size - T) if axis == 2 else (0, 0) for axis in range(x.ndim)])
        return jnp.moveaxis(x.reshape(*x.shape[:2], chunks, size, *x.shape[3:]), 2, 0)

    def join(x):
        return jnp.moveaxis(x, 0, 2).reshape(*x.shape[1:3], chunks * size)[:, :, :T]

    one_chunk = jax.checkpoint(functools.partial(_at_once, config, chosen))
    return jax.tree.map(join, lax.map(lambda chunk: one_chunk(shared, *chunk), (split(hidden), split(targets))))


def _by_vocabulary(config, at_once, shared, hidden, targets):
    rows = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    found = vocabulary_blocks.logprobs_and_entropies(config, at_once, *shared, *rows)
    return tuple(x.reshape(targets.shape) for x in found)
