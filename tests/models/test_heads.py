"""Scalar heads."""

import jax
import jax.numpy as jnp
import numpy as np

from spct_jax import models
from spct_jax.models import heads, sizes


def test_score_head_maps_hidden_states_to_scalars():
    head = models.init_score_head(sizes.toy(), jax.random.key(0))
    hidden = jax.random.normal(jax.random.key(1), (2, 3, 64)).astype(jnp.bfloat16)
    got = models.score(head, hidden)
    assert head["score"].shape == (64,) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.asarray(hidden, np.float32) @ np.asarray(head["score"]), rtol=1e-4, atol=1e-5)


def test_a_score_depends_on_no_other_row():
    hidden, weights = (np.random.default_rng(0).standard_normal(shape, np.float32) for shape in ((163, 1, 64), (64,)))
    order = np.random.default_rng(1).permutation(len(hidden))
    score = jax.jit(lambda hidden: heads.score({"score": jnp.asarray(weights)}, hidden))
    np.testing.assert_array_equal(score(hidden[order]), np.asarray(score(hidden))[order])
    np.testing.assert_allclose(score(hidden), hidden @ weights, atol=1e-5)
