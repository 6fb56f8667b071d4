"""Log-probabilities of the completions of a group on their shared trunk, which the losses of SFT and GRPO start from."""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from spct_jax import models
from spct_jax.data.batches import Groups
from spct_jax.models.config import ModelConfig


def completion_mask(groups: Groups) -> Float[Array, "B G T"]:
    """1 on the tokens of each completion, terminator included."""
    positions = jnp.arange(groups.targets.shape[-1])
    return (positions < groups.lengths[..., None]).astype(jnp.float32)


def group_logprobs(
    params: Any, config: ModelConfig, groups: Groups, temperature: Float[ArrayLike, ""] = 1.0
) -> tuple[Float[Array, "B G T"], Float[Array, "B G T"]]:
    """Log-probabilities and entropies of every completion token, in float32, at a sampling temperature."""
    trunk = models.prefill(params, config, groups.trunk_tokens, groups.trunk_lengths)
    return models.token_logprobs(
        params, config, trunk, groups.inputs[:, :, :-1], groups.targets, temperature=temperature, with_entropy=True
    )
