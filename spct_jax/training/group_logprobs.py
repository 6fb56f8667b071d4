"""Log-probabilities of the completions of a group on their shared trunk, which the losses of SFT and GRPO start from."""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from spct_jax import models
from spct_jax.data.batches import Groups
from spct_jax.models.config import ModelConfig
from spct_jax.models.places import Places


def completion_mask(groups: Groups) -> Float[Array, "B G T"]:
    """1 on the tokens of each completion, terminator included."""
    positions = jnp.arange(groups.targets.shape[-1])
    return (positions < groups.lengths[..., None]).astype(jnp.float32)


def group_logprobs(
    params: Any,
    config: ModelConfig,
    groups: Groups,
    temperature: Float[ArrayLike, ""] = 1.0,
    preamble: models.Trunk | None = None,
) -> tuple[Float[Array, "B G T"], Float[Array, "B G T"]]:
    """Log-probabilities and entropies of every completion token, in float32, at a sampling temperature.

    `preamble` is the trunk of what `groups.shared` counts; at their full shape, groups do without.
    """
    inputs, targets = groups.inputs[:, :, :-1], groups.targets
    if groups.shape is None:
        prompts = models.Prompts(groups.trunk_tokens, groups.trunk_lengths)
        return models.token_logprobs(params, config, prompts, inputs, targets, temperature=temperature)
    groups.check_preamble(preamble)
    trunk_slots, slots = groups.shape
    places = Places.of(groups.lengths, groups.rest, slots)
    tokens = places.trunks(groups.trunk_tokens, trunk_slots)
    prompts = models.Prompts(tokens, groups.own_lengths - groups.rest, preamble)
    inputs = places.inputs(groups.trunk_tokens, inputs)
    own = places.join(targets)
    found = models.token_logprobs(params, config, prompts, inputs, own, places=places, temperature=temperature)
    return tuple(places.divide(x, targets.shape[-1]) for x in found)
