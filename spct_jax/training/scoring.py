"""Log-probabilities of completions on their shared trunk: the one forward pass of every loss."""

from typing import Any

import jax
import jax.numpy as jnp

from spct_jax import models
from spct_jax.data.batches import Groups
from spct_jax.models.config import ModelConfig


def completion_mask(groups: Groups) -> jax.Array:
    """Float32[B G T]: 1 on the tokens of each completion, terminator included."""
    places = jnp.arange(groups.targets.shape[-1])
    return (places < groups.lengths[..., None]).astype(jnp.float32)


def group_logprobs(params: Any, config: ModelConfig, groups: Groups, temperature: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities and entropies of every completion token, both Float32[B G T], at a sampling temperature."""
    trunk = models.prefill(params, config, groups.trunk_tokens, groups.trunk_lengths)
    return models.token_logprobs(
        params, config, trunk, groups.inputs[:, :, :-1], groups.targets, temperature=temperature, with_entropy=True
    )
