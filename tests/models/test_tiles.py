"""Sizes by platform: whose devices decide, and that they change nothing but the order of sums."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import setup

from spct_jax import models
from spct_jax.models import attention, flops, sizes, splash, tiles, trunk_attention
from spct_jax.sharding import logical


def on(platform):
    """What is traced inside is for a mesh of that platform's devices, wherever it is traced."""
    devices = np.array([types.SimpleNamespace(platform=platform)])
    where = types.SimpleNamespace(mesh=types.SimpleNamespace(devices=devices))
    return logical.constraints(lambda shape, axes: where)


def test_the_devices_of_the_mesh_decide_not_those_that_trace():
    assert tiles.here() == tiles.of("cpu") != tiles.of("tpu")
    with on("tpu"):
        assert tiles.here() == tiles.of("tpu")
        assert attention.branch_blocks(4, 4095, 1024) == (21, 49)  # 2**20 / (4 * 5119) = 51 positions at most
    assert attention.branch_blocks(4, 4095, 1024) == (86, 12)
    with on("gpu"):
        assert attention.branch_blocks(8, 639, 128) == (1, 128)
        assert [list(b.queries)[-1] + 1 for b in trunk_attention.query_blocks(639, None)] == [256, 512, 639]
        cache = jax.eval_shape(lambda: models.init_cache(sizes.toy(), 1, 2, 200, 8))
        assert [v.shape[-2] for _, v in cache.past["blocks"]["0"]] == [128, 96]
    assert tiles.of("no such") == tiles.of("cpu")


def test_the_kernel_is_used_on_tpus_where_the_head_dim_allows_it():
    wide = dataclasses.replace(sizes.toy(), head_dim=128)
    asked = [sizes.toy(), *(dataclasses.replace(wide, attention=name) for name in ("auto", "xla", "splash"))]
    assert not any(map(splash.is_used, asked)) and not any(flops.kernels(c, 2, 512) for c in asked)
    with on("tpu"):
        used = [False, True, False, True]
        assert [splash.is_used(c) for c in asked] == [flops.kernels(c, 2, 512) > 0 for c in asked] == used


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_a_tpus_sizes_give_what_those_of_a_cpu_give(name, monkeypatch):
    config, params, trunks, lengths, inputs, _ = setup(name)

    def hidden():
        return jax.jit(lambda p: models.extend(p, config, models.prefill(p, config, trunks, lengths), inputs))(params)

    monkeypatch.setattr(trunk_attention, "QUERY_BLOCK", 4)
    monkeypatch.setitem(tiles.PLATFORMS, "cpu", dataclasses.replace(tiles.here(), queries=2, branch_scores=40))
    want = hidden()
    jax.clear_caches()
    monkeypatch.setitem(tiles.PLATFORMS, "cpu", tiles.of("tpu"))
    np.testing.assert_allclose(hidden(), want, atol=1e-5)
    assert jnp.isfinite(want).all()
