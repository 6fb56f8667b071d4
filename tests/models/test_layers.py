"""The modules of one layer."""

import jax
import jax.numpy as jnp
import numpy as np

from spct_jax.models import layers


def test_norm_is_computed_in_float32_and_scaled_before_the_cast():
    x = jax.random.normal(jax.random.key(0), (3, 64)).astype(jnp.bfloat16) * 100
    scale = jax.random.normal(jax.random.key(1), (64,))
    got = layers.RMSNorm(1e-6).apply({"params": {"scale": scale}}, x)
    y = np.asarray(x, np.float64)
    want = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) * (1 + np.asarray(scale, np.float64))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, jnp.asarray(want, jnp.float32).astype(jnp.bfloat16))
