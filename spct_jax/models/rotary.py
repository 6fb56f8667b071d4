"""Rotary position embeddings: queries and keys are turned by angles that grow with their positions.

Letters as in `spct_jax.models.decoder`.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from spct_jax.models.config import ModelConfig
from spct_jax.sharding import logical

Tables = tuple[Float[Array, "..."], Float[Array, "..."]]
"""Sines and cosines, both [.. T H/2]."""


def tables(positions: Int[Array, "... T"], head_dim: int, base: float, scale: float = 1.0) -> Tables:
    """The tables of positions divided by `scale`: float32 [.. T H/2] each."""
    timescale = base ** (jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions[..., None].astype(jnp.float32) / timescale / scale
    if logical.platform() == "gpu":
        # There, the host waits at a condition, and what is computed again costs nothing beside the bytes.
        return jnp.sin(angles), jnp.cos(angles)
    # In a loop, out of which XLA fuses nothing: on CPUs every use, in each head and layer, would compute them again.
    sin, cos = lax.map(lambda i: lax.switch(i, (jnp.sin, jnp.cos), angles), jnp.arange(2))
    return sin, cos


def tables_by_kind(config: ModelConfig, positions: Int[Array, "... T"]) -> dict[str, Tables]:
    """The tables of both kinds of layer, with an axis for the heads: [.. 1 T H/2]."""
    positions = positions[..., None, :]
    return {
        "local": tables(positions, config.head_dim, config.rope_base_local),
        "global": tables(positions, config.head_dim, config.rope_base_global, config.rope_scale_global),
    }


def rotate(x: Float[Array, "... T H"], tables: Tables) -> Float[Array, "... T H"]:
    """Turns x by `tables`, broadcast against it; the two halves of H are paired, the dtype is kept."""
    sin, cos = (table[..., None, :] for table in tables)
    halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    sign = jnp.array([[-1.0], [1.0]], jnp.float32)
    return (halves * cos + halves[..., ::-1, :] * (sign * sin)).reshape(x.shape).astype(x.dtype)
