"""Rotary position embeddings."""

import jax
import jax.numpy as jnp
import pytest

from spct_jax.models import rotary


def test_rope_depends_on_distance_only_and_divides_positions_by_the_scale():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 16))

    def product(i, j, scale=1.0):
        def turn(x, at):
            return rotary.rotate(x, rotary.tables(jnp.array([at]), 16, 1e4, scale))

        return float(jnp.vdot(turn(q, i), turn(k, j)))

    assert product(7, 3) == pytest.approx(product(104, 100), abs=1e-4)
    assert product(7, 3) != pytest.approx(product(7, 4), abs=1e-3)
    assert product(16, 8, scale=8.0) == pytest.approx(product(2, 1), abs=1e-5)
