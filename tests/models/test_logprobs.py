"""Log-probabilities of branches against those of the plain forward pass."""

import jax
import jax.numpy as jnp
import pytest
from small_models import CONFIGS, branched, plain, setup

from spct_jax.models import logprobs


@pytest.mark.parametrize("name", CONFIGS)
def test_logprobs_and_entropies_equal_the_plain_forwards(name):
    config, params, *data = setup(name)
    for temperature in (1.0, 0.6):
        want = plain(params, config, *data, temperature)
        for time_chunk in (32, 5):
            got = branched(params, config, *data, temperature, time_chunk=time_chunk)
            for a, b in zip(got, want, strict=True):
                assert float(jnp.abs(a - b).max()) <= 1e-5


def test_on_tpus_targets_are_found_by_comparison_with_the_same_gradient(monkeypatch):
    logits, targets = jax.random.normal(jax.random.key(0), (2, 3, 7)), jnp.array([[0, 6, 3], [5, 5, 1]])

    def on(platform):
        monkeypatch.setattr(logprobs.logical, "platform", lambda: platform)
        return jax.value_and_grad(lambda x: jnp.sin(logprobs._chosen()(x, targets)).sum())(logits)

    for a, b in zip(on("tpu"), on("cpu"), strict=True):
        assert jnp.array_equal(a, b)
