"""Scalar heads on top of the decoder's hidden states."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from spct_jax.models.config import ModelConfig


def init_score_head(config: ModelConfig, key: jax.Array) -> dict[str, jax.Array]:
    """A fresh scalar head: {'score': Float32[D]}, normal with standard deviation D^-0.5."""
    return {"score": jax.random.normal(key, (config.width,), jnp.float32) * config.width**-0.5}


def score(head: dict[str, jax.Array], hidden: jax.Array) -> jax.Array:
    """The head's logit for each hidden state [.. D]: Float32[..]."""
    # Not a matrix product: XLA's CPU backend adds up some rows of a matrix times a vector in another order than others.
    return jnp.sum(hidden.astype(jnp.float32) * head["score"].astype(jnp.float32), axis=-1)
