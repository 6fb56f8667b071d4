"""The model that engines draw with: its layers by the platform of the layout, and its parameters."""

import collections
import dataclasses
import operator

import compiled
import jax
import numpy as np
import pytest

from spct_jax import models, sharding
from spct_jax.models import sizes, tiles
from spct_jax.runtime import compiling
from spct_jax.sampling import Engine, Request, SamplingParams, Shape, engine_params, engine_programs
from spct_jax.sampling.engine_params import adopt, decode_model, decode_params
from spct_jax.sampling.engine_shape import Split


@pytest.mark.parametrize(("layers", "on_gpu", "elsewhere"), [(4, 1, 1), (26, 13, 1), (80, 40, 40)])
def test_layers_are_unrolled_as_the_platform_wants_it(layers, on_gpu, elsewhere, monkeypatch):
    """By repeats of the pattern; the TPU and the GPU are not there."""
    config, layout = dataclasses.replace(sizes.toy(), num_layers=layers), sharding.make_layout(devices=jax.devices()[:1])
    for platform, repeats in (("gpu", on_gpu), ("tpu", elsewhere), ("cpu", elsewhere)):
        monkeypatch.setattr(sharding.Layout, "platform", platform)
        params, drawn = decode_model.__wrapped__(layout, config)
        assert drawn.repeats == repeats and drawn.layer_kinds == config.layer_kinds
        assert jax.tree.structure(params) == jax.tree.structure(
            jax.eval_shape(lambda c=drawn: models.init(c, jax.random.key(0)))
        )


def test_a_model_is_converted_once_and_one_that_is_adopted_leaves_no_second_copy():
    config, layout = dataclasses.replace(sizes.toy(40), num_layers=5), sharding.make_layout(devices=jax.devices()[:2])
    stacked = jax.device_put(compiled.init(config, jax.random.key(0)), layout.replicated)
    converted = decode_params(stacked, config, layout)
    again = decode_params(converted, config, layout)
    assert all(map(operator.is_, jax.tree.leaves(again), jax.tree.leaves(converted)))
    adopted, drawn = adopt(stacked, config, layout)
    assert drawn == decode_model(layout, config)[1] == decode_model(layout, drawn)[1]
    jax.tree.map(np.testing.assert_array_equal, adopted, converted)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), adopted, converted))
    assert all(a.is_deleted() for a in jax.tree.leaves(stacked["blocks"]))


def test_where_the_width_is_last_a_model_draws_the_same(monkeypatch):
    """As on a TPU; with programs compiled ahead, which take arrays in no other order."""
    layout, drawn, held = sharding.make_layout(devices=jax.devices()[:2]), [], []
    key = np.asarray(jax.random.key_data(jax.random.key(5)))
    for last, remat in ((False, "none"), (True, "dots")):  # another architecture to what keeps programs
        monkeypatch.setitem(tiles.PLATFORMS, "cpu", dataclasses.replace(tiles.of("cpu"), width_last=last))
        config = dataclasses.replace(sizes.toy(44), num_layers=1, remat=remat)
        params = jax.device_put(compiled.init(config, jax.random.key(0)), layout.replicated)
        params, config = adopt(params, config, layout)
        engine = Engine(layout, params, config, Shape(16, 8, rows=2, branches=2, prefill_rows=2), SamplingParams(1.0, (1,)))
        with compiling.threads(2) as pool:
            programs = engine_programs.engine_programs(layout, config, engine.shape, SamplingParams(1.0, (1,)))
            programs.compile_ahead(pool, engine.shape.levels(engine.shape.split(16)))
            drawn.append(
                {
                    (f.request.tag, f.sample): (f.tokens, f.logprobs)
                    for f in engine.run([Request(i, [7, 8, 9 + i], key, collections.deque(range(2))) for i in range(3)])
                }
            )
        held.append(params)
    assert drawn[0].keys() == drawn[1].keys() and len(drawn[0]) == 6
    for at, (tokens, logprobs) in drawn[0].items():
        assert tokens == drawn[1][at][0]
        np.testing.assert_allclose(logprobs, drawn[1][at][1], atol=1e-5)
    for name, order in {"q": (0, 2, 3, 1), "v": (0, 2, 3, 1), "out": (0, 1, 2, 3)}.items():
        array = held[1]["blocks"]["0"]["attn"][name]
        assert array.format.layout.major_to_minor == order
        np.testing.assert_array_equal(array, held[0]["blocks"]["0"]["attn"][name])
    again = engine_params.reformat(held[1], layout)
    assert all(map(operator.is_, jax.tree.leaves(again), jax.tree.leaves(held[1])))


def shapes_and_dtypes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.parametrize(("max_prompt", "preamble", "slots"), [(24, 0, 32), (33, 16, 32), (40, 6, 64), (50, 17, 64)])
def test_a_trunk_fills_its_place_in_a_row_with_the_preamble_and_without(max_prompt, preamble, slots, monkeypatch):
    """In multiples of 16 slots, as on a TPU; also behind a stem. What is said of its arrays is what computes them makes."""
    monkeypatch.setitem(tiles.PLATFORMS, "cpu", dataclasses.replace(tiles.of("cpu"), trunk_slots=16))
    config, layout = dataclasses.replace(sizes.toy(41), window=20), sharding.make_layout(devices=jax.devices()[:1])
    shape = Shape(max_prompt, 8, rows=2, branches=2, prefill_rows=2, preamble=preamble).aligned(layout.platform)
    assert max_prompt <= shape.max_prompt < max_prompt + 16
    drawn = decode_model(layout, config)[1]
    row = engine_programs.abstract_slots(layout, drawn, shape).trunks[0]
    splits = {shape.split(max_prompt), shape.split(max_prompt, preamble), Split(preamble, 16, 8)}
    for level in (shape.levels(split)[-1] for split in splits):
        trunk = engine_programs.trunk_program(layout, drawn, level).lower().out_info
        said = engine_programs.abstract_trunks(layout, drawn, level.rows, level.trunk_slots)
        assert shapes_and_dtypes(trunk) == shapes_and_dtypes(said) == shapes_and_dtypes(row)
    assert {k.shape[-2] for k in jax.tree.leaves(row.layers)} == {slots, 20}
