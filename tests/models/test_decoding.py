"""Decoding one token at a time: the same as all positions at once, whatever other branches are at."""

import dataclasses
import functools
import itertools

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import CONFIGS, LENGTHS, G, T, V, setup

from spct_jax import models, sharding
from spct_jax.models import attention, decoding, tiles
from spct_jax.sharding.config import MeshConfig


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("held", "chunks"), [({}, (1, 16)), ({"time_last": False, "first_segment": 8}, (4,))])
def test_decoding_one_token_at_a_time_equals_extending_in_one_go(name, held, chunks, monkeypatch):
    """With the past held as on a CPU, and as on a TPU in two segments."""
    monkeypatch.setitem(tiles.PLATFORMS, "cpu", dataclasses.replace(tiles.here(), **held))
    jax.clear_caches()
    config, params, trunks, lengths, inputs, _ = setup(name)
    trunk = jax.jit(models.prefill, static_argnames="config")(params, config, trunks, lengths)
    want = jax.jit(models.extend, static_argnames="config")(params, config, trunk, inputs)
    step = jax.jit(models.decode, static_argnames="config")
    for chunk in chunks:
        cache = models.init_cache(config, len(LENGTHS), G, T + 2, chunk)
        for t in range(T):
            base = jnp.full((len(LENGTHS), G), t // chunk * chunk)
            hidden, cache = step(params, config, (trunk,), inputs[..., t], cache, base, t % chunk)
            np.testing.assert_allclose(hidden, want[:, :, t], atol=2e-5)
            cache = compiled.flush(cache, base) if t % chunk == chunk - 1 else cache


@pytest.mark.parametrize("cap", [0.0, 50.0])
def test_how_much_of_the_past_is_read_changes_no_bit(cap):
    """Branches have up to 20 columns; the longest one beside them decides how many are read."""
    rng, S = np.random.default_rng(0), 160
    q, k, v = (rng.standard_normal(s, np.float32) for s in ((2, 3, 2, 2, 16), (2, 3, 2, 16, S), (2, 3, 2, S, 16)))
    q, k, v = map(jnp.asarray, (q, k, v))
    base = jnp.asarray(rng.integers(1, 21, (2, 3)), jnp.int32)
    assert decoding.segments(S) == [(0, 32), (32, 64), (64, 128), (128, 160)] and decoding.segments(24) == [(0, 24)]

    def segments(first):
        return [(k[..., start:stop], v[..., start:stop, :]) for start, stop in decoding.segments(S, first)]

    @functools.partial(jax.jit, static_argnames="first")
    def attend(longest, first=32):
        past, standing = segments(first), attention.Standing(base, jnp.zeros_like(base), ())
        seen = decoding.visible([], [v.shape[-2] for _, v in past], 8, 0, standing, None)
        return decoding.attend_past(q, past, seen.past, longest, cap)

    first, *others = (attend(longest) for longest in (20, 33, 65, 129))
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, first)
    scores = np.einsum("BGKMH,BGKHS->BGKMS", q, k)
    scores = cap * np.tanh(scores / cap) if cap else scores
    weights = np.exp(scores) * (np.arange(S) < np.asarray(base)[:, :, None, None, None])
    want = np.einsum("BGKMS,BGKSH->BGKMH", weights, v) / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(attention.merge(first), want, rtol=2e-5, atol=2e-6)
    assert not float(np.abs(attend(0).sum).max())
    assert len(segments(128)) == 2
    np.testing.assert_allclose(attention.merge(attend(20, 128)), want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("alike", [False, True])
def test_a_chunk_goes_where_it_belongs_in_the_past_and_nowhere_else(alike):
    config, rng, C = CONFIGS["gemma2"], np.random.default_rng(0), 8
    cache = models.init_cache(config, 2, 3, 100, C)
    cache = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32)), cache)
    base = np.full((2, 3), 72) if alike else np.array([[0, 24, 32], [56, 64, 120]])
    flushed = compiled.flush(cache, jnp.int32(72) if alike else jnp.asarray(base))
    for name, (k, v) in cache.recent["blocks"].items():
        for new, number, axis in ((np.swapaxes(k, -1, -2), 0, -1), (v, 1, -2)):
            want, got = (
                np.moveaxis(np.concatenate([pair[number] for pair in c.past["blocks"][name]], axis), axis, 3).copy()
                for c in (cache, flushed)
            )
            for b, g in np.ndindex(2, 3):
                want[:, b, g, base[b, g] : base[b, g] + C] = np.moveaxis(new, axis, 3)[:, b, g]
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("config", [MeshConfig(strategy="fsdp"), MeshConfig(strategy="tensor", tensor=2)])
def test_every_device_moves_its_own_chunks_and_is_sent_none(config):
    layout, rng = sharding.make_layout(config), np.random.default_rng(0)
    cache = models.init_cache(CONFIGS["gemma2"], 2, 3, 100, 8)
    cache = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32)), cache)
    base = jnp.array([[0, 24, 32], [56, 64, 96]])
    split = jax.tree.map(lambda x: layout.resolve(x.shape, (None, "batch", None, "kv_heads")), cache)

    def flush(cache, base):
        with layout.constraints():
            return models.flush(cache, base)

    program = jax.jit(flush, in_shardings=(split, layout.sharding("batch")), out_shardings=split).lower(cache, base).compile()
    assert not [name for name in ("all-", "collective", "reduce-scatter") if name in program.as_text()]
    jax.tree.map(np.testing.assert_array_equal, program(cache, base), compiled.flush(cache, base))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("slots", [67, 79, 103])
def test_where_a_trunk_stands_in_its_row_changes_no_bit(slots, name):
    """Every row has the same three trunks, in another order each; every branch reads on from its own."""
    config, params, *_ = setup(name)
    tokens = jax.random.randint(jax.random.key(4), (3, slots), 0, V)
    own = jax.jit(models.prefill, static_argnames="config")(params, config, tokens, jnp.array([slots, 11, slots // 2]))
    orders = np.array(list(itertools.permutations(range(3))))
    place = jnp.array(np.argsort(orders, axis=1)[:, [0, 1, 2, 1]])

    def row_of(order):
        layers = {
            group: jax.tree.map(lambda x, axis=int(group == "blocks"): jnp.take(x, order, axis=axis), stack)
            for group, stack in own.layers.items()
        }
        return models.Trunk(layers=layers, lengths=own.lengths[order])

    cache = models.init_cache(config, *place.shape, 8, 8)
    last = jnp.broadcast_to(jnp.array([5, 6, 7, 8]), place.shape)
    trunks = tuple(row_of(order) for order in orders.T)
    step = jax.jit(models.decode, static_argnames="config")
    hidden, _ = step(params, config, trunks, last, cache, jnp.zeros_like(place), 0, place)
    np.testing.assert_array_equal(hidden, np.broadcast_to(hidden[:1], hidden.shape))
    cache = models.init_cache(config, 1, 1, 8, 8)
    want, _ = step(params, config, (row_of(np.array([1])),), last[:1, 1:2], cache, jnp.zeros((1, 1), int), 0)
    np.testing.assert_allclose(hidden[0, 1], want[0, 0], atol=2e-5)
