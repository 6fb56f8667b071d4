"""`models.flops` against what XLA compiles."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from spct_jax import models, sharding
from spct_jax.checkpoints import abstract_params, train_state
from spct_jax.models import flops, sizes, tiles
from spct_jax.planning import hlo, programs
from spct_jax.sampling import SamplingParams, Shape, engine_programs
from spct_jax.training import grpo, optimizers, sft
from spct_jax.training.config import OptimizerConfig
from spct_jax.training.micro_batches import Batch

MODEL = dataclasses.replace(sizes.toy(512), num_layers=6, width=128, ffw_width=256, window=64, remat="full")


@pytest.mark.parametrize("program", ["sft", "reference"])
@pytest.mark.parametrize(("layers", "scores", "count"), [(4, 2**18, 1), (6, 2**18, 1), (7, 2**14, 2)])
def test_the_count_by_hand_is_what_is_compiled(program, layers, scores, count, monkeypatch):
    """In one micro-batch, and in two of one row each."""
    monkeypatch.setitem(tiles.PLATFORMS, "cpu", dataclasses.replace(tiles.here(), branch_scores=scores))
    jax.clear_caches()
    B, G, P, T = 2, 4, 320, 64
    model = dataclasses.replace(MODEL, num_layers=layers)
    params, groups = abstract_params(model), programs.abstract_groups(B, G, P, T)
    layout, batch = sharding.make_layout(devices=jax.devices()[:1]), Batch(groups, [(P + 1, T)] * count)
    if program == "sft":
        optimizer = optimizers.make(OptimizerConfig(), 10)
        state = train_state.abstract_state(None, params, optimizer)
        parts = sft.make_step(layout, state, model, optimizer).lower(state, [batch])
        expected = flops.update(model, B, G, P, T)
    else:
        temperature = jax.ShapeDtypeStruct((), jnp.float32)
        parts = grpo.make_reference(layout, params, model).lower(params, batch, temperature)
        expected = flops.forward(model, B, G, P, T)
    found = sum(part.times * hlo.Module(part.program.compile().as_text()).cost().flops for part in parts)
    assert found == pytest.approx(expected, rel=0.01)


def test_the_count_of_a_token_is_what_is_compiled():
    """Of branches in rows with two trunks, of which layers with a window read as much each."""
    layout, sampling = sharding.make_layout(devices=jax.devices()[:1]), SamplingParams(1.0, (1,))
    shape = Shape(max_prompt=321, max_new_tokens=64, rows=2, branches=4, trunks=2)
    lowered = engine_programs.engine_programs(layout, MODEL, shape, sampling).chunk.lower()
    found = hlo.Module(lowered.compile().as_text()).cost(steps=shape.chunk).flops
    assert found == pytest.approx(flops.decode(MODEL, 8, 320, 64 + shape.chunk, trunks=2), rel=0.01)


def test_the_count_of_trunks_behind_a_prefix_is_what_is_compiled():
    """One that a window cuts, and own tokens in blocks."""
    params, ints = abstract_params(MODEL), functools.partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    prefix = jax.eval_shape(lambda p, *row: models.prefill(p, MODEL, *row), params, ints((1, 100)), ints((1,)))
    lowered = jax.jit(models.prefill, static_argnums=1).lower(params, MODEL, ints((2, 320)), ints((2,)), prefix)
    found = hlo.Module(lowered.compile().as_text()).cost().flops
    assert found == pytest.approx(flops.prefill(MODEL, 2, 320, 100), rel=0.01)
