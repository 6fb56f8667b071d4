"""The kernels of decoding on GPUs, interpreted here, against NumPy's softmax in double precision and the reference by XLA."""

import contextlib
import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import CONFIGS, setup

from spct_jax import models, sharding
from spct_jax.models import decode_kernels, tiles
from spct_jax.models.attention import Standing
from spct_jax.sharding import logical
from spct_jax.sharding.config import MeshConfig

L, B, G, K, H, S, T, C = 2, 2, 3, 2, 64, 260, 96, 8
ROW, COLUMN = 1, 3
PAST = np.array([[0, T, 40], [8, 64, 16]])
SLOT = np.array([[0, 1, 1], [1, 0, 1]])
TRUNKS = (np.array([S, 0]), np.array([33, 50]))


@pytest.fixture(autouse=True)
def queries_in_blocks(monkeypatch):
    """Of 16, so that eight heads of three branches are one and a half; S slots are read in two parts."""
    monkeypatch.setattr(decode_kernels, "TRUNK_QUERIES", 16)


@functools.cache
def arrays(heads):
    """(queries, trunks, past, recent)."""
    keys = iter(jax.random.split(jax.random.key(0), 9))

    def pair(*shape):
        return tuple(jax.random.normal(next(keys), shape, jnp.bfloat16) for _ in range(2))

    q = jax.random.normal(next(keys), (B, G, K, heads, H), jnp.bfloat16) / 3
    return q, [pair(L, B, K, S, H) for _ in TRUNKS], pair(L, B, G, K, T, H), pair(L, B, G, K, C, H)


@functools.partial(jax.jit, static_argnames=("window", "cap"))
def attend(q, trunks, past, recent, past_lengths, slot, lengths, window, cap):
    return decode_kernels.attend(q, trunks, past, recent, ROW, COLUMN, Standing(past_lengths, slot, lengths), window, cap)


def softmax(q, trunks, past, recent, window, cap):
    """Branch by branch over the keys that it sees."""
    q, trunks, past, recent = jax.tree.map(lambda x: np.asarray(x, np.float64), (q, trunks, past, recent))
    out = np.empty(q.shape)
    for b, g in np.ndindex(B, G):
        u, length = SLOT[b, g], PAST[b, g]
        parts = [x[ROW, b, :, S - TRUNKS[u][b] :] for x in trunks[u]], [x[ROW, b, g, :, :length] for x in past]
        last = [x[ROW, b, g, :, : COLUMN + 1] for x in recent]
        k, v = (np.concatenate(arrays, axis=1)[:, -(window or 10**6) :] for arrays in zip(*parts, last, strict=True))
        scores = np.einsum("KMH,KSH->KMS", q[b, g], k)
        weights = np.exp(cap * np.tanh(scores / cap) if cap else scores)
        out[b, g] = np.einsum("KMS,KSH->KMH", weights / weights.sum(-1, keepdims=True), v)
    return out


@pytest.mark.parametrize(("heads", "window", "cap", "split"), [(1, None, 50.0, False), (2, 30, 0.0, False), (8, 80, 0.0, True)])
def test_the_kernels_are_the_softmax_over_all_keys_that_a_branch_sees(heads, window, cap, split):
    """To 4e-3 of the norm in bfloat16, whose results are rounded by up to that. Lengths are 0, full and between; the windows
    end in the past and in the trunk. Split: rows over two devices, kv heads over two."""
    held, layout = arrays(heads), sharding.make_layout(MeshConfig(strategy="fsdp_tensor", tensor=2), jax.devices()[:4])
    with layout.constraints() if split else contextlib.nullcontext():
        got = attend(*held, PAST, SLOT, TRUNKS, window=window, cap=cap)
    want = softmax(*held, window, cap)
    assert got.dtype == held[0].dtype and len(got.sharding.device_set) == (layout.mesh.size if split else 1)
    for b, g in np.ndindex(B, G):
        assert np.linalg.norm(np.float64(got[b, g]) - want[b, g]) <= 4e-3 * np.linalg.norm(want[b, g])


def test_neither_the_slot_of_its_trunk_nor_its_neighbours_change_a_bit_of_a_branch():
    q, trunks, *own = arrays(2)
    want = attend(q, trunks, *own, PAST, SLOT, TRUNKS, window=30, cap=0.0)
    np.testing.assert_array_equal(attend(q, trunks[::-1], *own, PAST, 1 - SLOT, TRUNKS[::-1], window=30, cap=0.0), want)
    others, slots = np.full_like(PAST, 24), 1 - SLOT
    others[:, 1], slots[:, 1] = PAST[:, 1], SLOT[:, 1]
    got = attend(q, trunks, *own, others, slots, TRUNKS, window=30, cap=0.0)
    np.testing.assert_array_equal(got[:, 1], want[:, 1])
    assert not np.array_equal(got, want)


def test_decoding_by_the_kernels_is_decoding_by_xla(monkeypatch):
    """To 1e-2 of the norm in bfloat16: a token behind a full chunk, in a layer that is left over."""
    _, _, tokens, lengths, inputs, _ = setup("gemma2")
    config = dataclasses.replace(CONFIGS["gemma2"], num_layers=1, head_dim=H, dtype="bfloat16")
    params = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    trunk = jax.jit(models.prefill, static_argnums=1)(params, config, tokens, lengths)

    def hidden(used):
        monkeypatch.setitem(tiles.PLATFORMS, "cpu", dataclasses.replace(tiles.of("gpu"), decode_kernels=used))
        step, flush = jax.jit(lambda *arguments: models.decode(params, config, (trunk,), *arguments)), jax.jit(models.flush)
        cache, start = models.init_cache(config, *inputs.shape[:2], 40, 2), jnp.zeros(inputs.shape[:2], int)
        _, cache = step(inputs[..., 0], cache, start, 0)
        _, cache = step(inputs[..., 1], cache, start, 1)
        return step(inputs[..., 2], flush(cache, start), start + 2, 0)[0].astype(jnp.float32)

    want, got = hidden(False), hidden(True)
    assert np.linalg.norm(got - want) <= 1e-2 * np.linalg.norm(want) and not np.array_equal(got, want)


def test_the_kernels_are_used_on_gpus_where_a_model_allows_it(monkeypatch):
    config = dataclasses.replace(CONFIGS["gemma3"], head_dim=H, dtype="bfloat16")
    assert not decode_kernels.is_used(config)
    monkeypatch.setitem(tiles.PLATFORMS, "cpu", tiles.of("gpu"))
    assert decode_kernels.is_used(config)
    for field, value in (("dtype", "float32"), ("head_dim", 96), ("quantize", "int8"), ("attention", "xla")):
        assert not decode_kernels.is_used(dataclasses.replace(config, **{field: value}))
    for capability, used in (("7.5", False), ("8.0", True), ("10.0", True)):
        monkeypatch.setattr(logical, "device", lambda c=capability: types.SimpleNamespace(platform="gpu", compute_capability=c))
        assert decode_kernels.is_used(config) == used


def test_a_past_of_one_segment_takes_the_memory_of_several(monkeypatch):
    """Engines are sized by it, see `sampling.engine_size`."""
    config = dataclasses.replace(CONFIGS["gemma3"], head_dim=H, dtype="bfloat16")
    found = []
    for used in (True, False):
        monkeypatch.setitem(tiles.PLATFORMS, "cpu", dataclasses.replace(tiles.of("gpu"), decode_kernels=used))
        cache = jax.eval_shape(lambda: models.init_cache(config, 1, 2, 200, 8))
        columns = [v.shape[-2] for _, v in cache.past["blocks"]["0"]]
        found.append((columns, sum(x.size for x in jax.tree.leaves(cache))))
    assert found[0] == ([224], found[1][1]) and found[1][0] == [128, 96]
