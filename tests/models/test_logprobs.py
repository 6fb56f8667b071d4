"""Log-probabilities of branches against those of the plain forward pass."""

import jax.numpy as jnp
import pytest
from small_models import CONFIGS, branched, plain, setup


@pytest.mark.parametrize("name", CONFIGS)
def test_logprobs_and_entropies_equal_the_plain_forwards(name):
    config, params, *data = setup(name)
    for temperature in (1.0, 0.6):
        want = plain(params, config, *data, temperature)
        for time_chunk in (32, 5):
            got = branched(params, config, *data, temperature, time_chunk=time_chunk)
            for a, b in zip(got, want, strict=True):
                assert float(jnp.abs(a - b).max()) <= 1e-5
