"""Log-probabilities by blocks of the vocabulary against those of all logits at once, and their gradients."""

import contextlib
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax import sharding
from spct_jax.models import decoder, vocabulary_blocks
from spct_jax.models.config import ModelConfig
from spct_jax.sharding import logical
from spct_jax.sharding.config import MeshConfig


def config(**fields):
    known = dict(vocab_size=30, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=4, ffw_width=4, query_scale=1.0)
    return ModelConfig(width=8, **known | fields)


def plain(config, table, temperature, hidden, targets):
    logprobs = jax.nn.log_softmax(decoder.unembed_with(table, config, hidden) / temperature)
    entropies = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
    return jnp.take_along_axis(logprobs, targets[:, None], axis=-1)[:, 0], entropies


@pytest.mark.parametrize("fields", [{}, {"final_softcap": 3.0, "num_tokens": 23}])
@pytest.mark.parametrize("at_once", [7, 50, 10_000])
def test_log_probabilities_and_gradients_are_those_of_all_logits_at_once(fields, at_once):
    model, rng = config(**fields), np.random.default_rng(0)
    table, hidden, *weights = (rng.standard_normal(shape).astype(np.float32) for shape in ((30, 8), (7, 8), 7, 7))
    targets = rng.integers(0, 23, 7)

    def both(compute):
        def loss(table, hidden):
            found = compute(table, jnp.float32(0.7), hidden, jnp.asarray(targets))
            return sum(jnp.sum(w * x) for w, x in zip(weights, found, strict=True)), found

        return jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(table, hidden))

    ours = functools.partial(vocabulary_blocks.logprobs_and_entropies, model, at_once)
    for a, b in zip(both(ours), both(functools.partial(plain, model)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_gradients_are_the_same_where_the_batch_is_split_over_devices():
    model, rng = config(), np.random.default_rng(0)
    table, hidden = (rng.standard_normal(shape).astype(np.float32) for shape in ((30, 8), (len(jax.devices()), 8, 8)))
    targets = rng.integers(0, 30, hidden.shape[:2])

    def gradients(compute, layout=None):
        def rows(table, hidden, targets):
            found = compute(table, jnp.float32(0.7), hidden.reshape(-1, 8), targets.reshape(-1))
            return (found[0] + found[1] ** 2).reshape(targets.shape)

        def loss(table, hidden):
            return logical.shard_map_batch(rows, table, hidden, jnp.asarray(targets)).sum()

        with layout.constraints() if layout else contextlib.nullcontext():
            return jax.jit(jax.grad(loss, argnums=(0, 1)))(table, hidden)

    ours = functools.partial(vocabulary_blocks.logprobs_and_entropies, model, 50)
    split = gradients(ours, sharding.make_layout(MeshConfig(strategy="fsdp")))
    for a, b in zip(split, gradients(functools.partial(plain, model)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize(
    "size, positions, blocks",
    [
        (262_144, 2048, 16),
        (262_208, 2048, 17),
        (7, 1 << 25, 7),
        (100, 1, 1),
        (256_000, 4096, 40),
        (128 * 1187, 4096, 32),  # in whole lanes there are 1 or 1,187
    ],
)
def test_blocks_are_equal_and_no_larger_than_allowed_and_of_whole_lanes_where_that_can_be(size, positions, blocks):
    found = vocabulary_blocks.count(size, positions, 1 << 25)
    assert found == blocks and size % found == 0


def test_a_gradient_takes_the_memory_of_one_table_and_a_few_blocks():
    model = ModelConfig(
        vocab_size=1 << 15, width=32, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=4, ffw_width=4, query_scale=1.0
    )
    arrays = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1 << 15, 32), (), (64, 32))]
    compute = functools.partial(vocabulary_blocks.logprobs_and_entropies, model, 1 << 16)
    loss = jax.jit(jax.grad(lambda *a: sum(x.sum() for x in compute(*a)), argnums=(0, 2)))
    account = loss.lower(*arrays, jax.ShapeDtypeStruct((64,), jnp.int32)).compile().memory_analysis()
    assert account.temp_size_in_bytes < 8 * 4 * (1 << 16) + account.output_size_in_bytes / 2


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
@pytest.mark.parametrize(("spec", "used"), [([], True), (["tensor"], False)])
def test_on_accelerators_blocks_are_used_where_the_vocabulary_is_not_split(platform, spec, used, monkeypatch):
    monkeypatch.setattr(vocabulary_blocks, "LARGE", 100)
    devices = np.array([types.SimpleNamespace(platform=platform)])
    with logical.constraints(lambda shape, axes: types.SimpleNamespace(mesh=types.SimpleNamespace(devices=devices), spec=spec)):
        assert vocabulary_blocks.are_used(config(vocab_size=128)) == used


def test_only_large_vocabularies_that_have_equal_blocks_are_taken_in_blocks(monkeypatch):
    assert not vocabulary_blocks.are_used(config(vocab_size=128))
    monkeypatch.setattr(vocabulary_blocks, "LARGE", 100)
    assert vocabulary_blocks.are_used(config(vocab_size=128))
    assert not vocabulary_blocks.are_used(config(vocab_size=127))
