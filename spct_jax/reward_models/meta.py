"""The meta reward model (section 4 of the SPCT paper): one scalar for a critique."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from spct_jax import checkpoints, models
from spct_jax.data.batches import Groups
from spct_jax.models import heads
from spct_jax.models.config import ModelConfig
from spct_jax.sharding import Layout


def meta_rewards(params: Any, config: ModelConfig, groups: Groups) -> jax.Array:
    """Float32[B G]: the scalar head at the last token of each critique.

    Args:
      params: {"model": ..., "head": ...}.
      config: the architecture.
      groups: meta prompts and, as completions, critiques.
    """
    trunk = models.prefill(params["model"], config, groups.trunk_tokens, groups.trunk_lengths)
    hidden = models.extend(params["model"], config, trunk, groups.inputs)
    last = jnp.take_along_axis(hidden, groups.lengths[..., None, None], axis=2)[:, :, 0]
    return heads.score(params["head"], last)


@functools.cache
def make_scorer(layout: Layout, config: ModelConfig) -> Callable[[Any, Groups], jax.Array]:
    """The jitted `meta_rewards`: a function of (params, groups), both on the devices as the layout splits them."""

    def score(params: Any, groups: Groups) -> jax.Array:
        with layout.constraints():
            return meta_rewards(params, config, groups)

    params, rows = layout.params(checkpoints.abstract_params(config, checkpoints.ModelKind.META_RM)), layout.sharding("batch")
    return jax.jit(score, in_shardings=(params, rows), out_shardings=rows)
