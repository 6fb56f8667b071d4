"""Scalar heads on top of the decoder's hidden states."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from spct_jax.models.config import ModelConfig


def init_score_head(config: ModelConfig, key: PRNGKeyArray) -> dict[str, Float[Array, " D"]]:
    """A fresh scalar head, {'score': float32 [D]}: normal with standard deviation D^-0.5."""
    return {"score": jax.random.normal(key, (config.width,), jnp.float32) * config.width**-0.5}


def score(head: dict[str, Float[Array, " D"]], hidden: Float[Array, "... D"]) -> Float[Array, "..."]:
    """The head's logit for each hidden state; float32."""
    # Not a matrix product: XLA's CPU backend adds up some rows of a matrix times a vector in another order than others.
    return jnp.sum(hidden.astype(jnp.float32) * head["score"].astype(jnp.float32), axis=-1)
