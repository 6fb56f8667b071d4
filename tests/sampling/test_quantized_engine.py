"""Engines that draw with int8 weights, keys and values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_engine import CONFIG, PROMPTS, SHAPE, drawn, requests

from spct_jax import models, sharding
from spct_jax.data import batches
from spct_jax.models import quantized
from spct_jax.sampling import Engine, SamplingParams
from spct_jax.sampling.engine_params import adopt, decode_params
from spct_jax.sampling.engine_size import Sizes
from spct_jax.sharding.config import MeshConfig

pytest.importorskip("qwix", reason="needs qwix (pip install -e '.[dev]')")

INT8 = dataclasses.replace(CONFIG, quantize="int8")


def floats(config=CONFIG):
    return jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))


def made(layout):
    params = decode_params(jax.device_put(floats(), layout.replicated), INT8, layout)
    return Engine(layout, params, INT8, SHAPE, SamplingParams(1.0, (1,)))


def layout_of(strategy="data", devices=1, **more):
    return sharding.make_layout(MeshConfig(strategy=strategy, **more), jax.devices()[:devices])


@functools.cache
def together():
    return drawn(made(layout_of()), requests())


def test_a_completion_is_the_same_alone_and_among_others_and_close_to_that_of_floats():
    alone = drawn(made(layout_of()), requests(chosen=[4]))
    assert all(together()[at] == value for at, value in alone.items()) and len(together()) == 5 * len(PROMPTS)
    chosen = [((number, sample), *value) for (number, sample), value in together().items() if sample == 0]
    tokens, lengths, last = batches.pack_prompts([PROMPTS[number] for (number, _), *_ in chosen], SHAPE.max_prompt)
    targets = np.zeros((len(chosen), 1, SHAPE.max_new_tokens), np.int32)
    for row, (_, completion, _) in zip(targets, chosen, strict=True):
        row[0, : len(completion)] = completion
    inputs = np.concatenate([last[:, None, None], targets[..., :-1]], axis=-1)
    scored = np.asarray(score(floats(), *map(jnp.asarray, (tokens, lengths, inputs, targets))))[:, 0]
    ratios = [np.exp(of_floats[: len(drawn)] - drawn) for of_floats, (_, _, drawn) in zip(scored, chosen, strict=True)]
    assert 1e-4 < np.abs(np.concatenate(ratios) - 1).mean() < 0.05


@jax.jit
def score(params, tokens, lengths, inputs, targets):
    trunk = models.prefill(params, CONFIG, tokens, lengths)
    return models.token_logprobs(params, CONFIG, trunk, inputs, targets)[0]


def test_layouts_hold_the_same_numbers_and_split_them_as_they_do_floats():
    params = floats()
    one = decode_params(params, INT8, layout_of())
    for layout in (layout_of("tensor", 2, tensor=2), layout_of("fsdp", 2)):
        split = decode_params(params, INT8, layout)
        jax.tree.map(np.testing.assert_array_equal, one, split)
        q, where = split["blocks"]["0"]["attn"]["q"], layout.params(params)["blocks"]["0"]["attn"]["q"]
        assert q.qvalue.sharding.is_equivalent_to(where, 4)
        assert q.scale.sharding.shard_shape(q.scale.shape)[-2] == q.qvalue.sharding.shard_shape(q.qvalue.shape)[-2]
        assert all(map(lambda a, b: a is b, *map(jax.tree.leaves, (split, decode_params(split, INT8, layout)))))


def test_a_split_model_draws_the_same_completions_but_for_the_last_bits():
    got = drawn(made(layout_of("tensor", 2, tensor=2)), requests(chosen=[4, 7]))
    same = [at for at in got if together()[at][0] == got[at][0]]
    assert len(same) > len(got) / 2
    for at in same:
        np.testing.assert_allclose(got[at][1], together()[at][1], atol=5e-3)


def test_a_model_that_is_adopted_leaves_no_second_copy():
    config, layout = dataclasses.replace(INT8, num_layers=3), layout_of(devices=2)
    stacked = jax.device_put(floats(config), layout.replicated)
    converted = decode_params(stacked, config, layout)
    adopted, drawn_with = adopt(stacked, config, layout)
    assert drawn_with.quantize == "int8"
    jax.tree.map(np.testing.assert_array_equal, adopted, converted)
    assert all(a.is_deleted() for a in jax.tree.leaves((stacked["blocks"], stacked["embedder"])))
    assert quantized.is_quantized(adopted["embedder"]["input_embedding"])


def test_what_an_engine_takes_of_memory_shrinks():
    layout = layout_of()
    before, after = (Sizes(layout, config, 1 << 40).account(SHAPE) for config in (CONFIG, INT8))
    assert 0.24 < after.parameters / before.parameters < 0.35  # a quarter, and scales of a small model
    assert after.slots < 0.6 * before.slots and after.arriving == before.arriving
