"""The meta reward model: one scalar for a critique."""

from typing import Any

import jax
import jax.numpy as jnp

from spct_jax import models
from spct_jax.data.batches import Groups
from spct_jax.models import heads
from spct_jax.models.config import ModelConfig
from spct_jax.sharding import Program


def meta_rewards(params: Any, config: ModelConfig, groups: Groups) -> jax.Array:
    """Float32[B G]: the scalar head at the last token of each critique.

    Args:
      params: {"model": ..., "head": ...}.
      groups: meta prompts and, as completions, critiques.
    """
    trunk = models.prefill(params["model"], config, groups.trunk_tokens, groups.trunk_lengths)
    hidden = models.extend(params["model"], config, trunk, groups.inputs)
    last = jnp.take_along_axis(hidden, groups.lengths[..., None, None], axis=2)[:, :, 0]
    return heads.score(params["head"], last)


def _score(params: Any, groups: Groups, *, config: ModelConfig) -> jax.Array:
    return meta_rewards(params, config, groups)


score_critiques = Program(_score, ("params", "batch"), lambda layout, *_, **__: layout.sharding("batch"))
