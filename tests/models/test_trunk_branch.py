"""Trunk and branches against the plain forward pass over whole sequences."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax import models
from spct_jax.models import attention, decoding, heads, sizes

V, P, G, T = 97, 24, 3, 13
WINDOW = 8
LENGTHS = (0, 1, 3, 7, 8, 9, 23, 24)  # shorter than, at and longer than the window; T is longer than it too
GEMMA2 = dataclasses.replace(sizes.toy(V), num_heads=4, num_kv_heads=2, head_dim=16, query_scale=0.25, window=WINDOW)
GEMMA3 = dataclasses.replace(GEMMA2, num_layers=3, attn_softcap=0.0, final_softcap=0.0, qk_norm=True)
CONFIGS = {"gemma2": GEMMA2, "gemma3": GEMMA3}


@functools.cache
def setup(name):
    config = CONFIGS[name]
    params = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    scales = jax.random.normal(jax.random.key(9), (64,)) * 0.3
    params["blocks"]["0"]["post_attention_norm"]["scale"] += scales
    trunks = jax.random.randint(jax.random.key(1), (len(LENGTHS), P), 0, V)
    sequences = jax.random.randint(jax.random.key(2), (len(LENGTHS), G, T + 1), 0, V)
    return config, params, trunks, jnp.array(LENGTHS), sequences[..., :-1], sequences[..., 1:]


@functools.partial(jax.jit, static_argnames=("config", "time_chunk"))
def branched(params, config, trunks, lengths, inputs, targets, temperature=1.0, time_chunk=32):
    config = dataclasses.replace(config, time_chunk=time_chunk)
    trunk = models.prefill(params, config, trunks, lengths)
    return models.token_logprobs(params, config, trunk, inputs, targets, temperature=temperature, with_entropy=True)


@functools.partial(jax.jit, static_argnames="config")
def plain(params, config, trunks, lengths, inputs, targets, temperature=1.0):
    """The same numbers from whole sequences, each padded behind its end, where causality hides the padding."""
    B, G, T = inputs.shape
    index = jnp.arange(P + T)
    rows = jnp.concatenate([jnp.broadcast_to(trunks[:, None], (B, G, P)), inputs], -1)
    rows = jnp.take_along_axis(rows, jnp.minimum(index + P - lengths[:, None, None], P + T - 1), -1)
    logits = models.logits(params, config, rows.reshape(B * G, -1)).reshape(B, G, P + T, -1)
    at = jnp.broadcast_to((lengths[:, None] + jnp.arange(T))[:, None, :, None], (B, G, T, 1))
    logs = jax.nn.log_softmax(jnp.take_along_axis(logits, at, 2) / temperature, -1)
    return jnp.take_along_axis(logs, targets[..., None], -1)[..., 0], -(jnp.exp(logs) * logs).sum(-1)


@pytest.mark.parametrize("name", CONFIGS)
def test_logprobs_and_entropies_equal_the_plain_forwards(name):
    config, params, *data = setup(name)
    for temperature in (1.0, 0.6):
        want = plain(params, config, *data, temperature)
        for time_chunk in (32, 5):
            got = branched(params, config, *data, temperature, time_chunk=time_chunk)
            for a, b in zip(got, want, strict=True):
                assert float(jnp.abs(a - b).max()) <= 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_equal_the_plain_forwards(name):
    config, params, *data = setup(name)
    config = dataclasses.replace(config, remat="full" if name == "gemma3" else "none")
    weights = jax.random.normal(jax.random.key(3), data[-1].shape)

    def loss(params, forward):
        return (forward(params, config, *data)[0] * weights).sum()

    want = jax.jit(jax.grad(lambda p: loss(p, plain)))(params)
    got = jax.jit(jax.grad(lambda p: loss(p, functools.partial(branched, time_chunk=5))))(params)
    error = jax.tree.map(lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b)), got, want)
    assert max(jax.tree.leaves(error)) <= 1e-5, error


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_one_token_at_a_time_equals_extending_in_one_go(name):
    config, params, trunks, lengths, inputs, _ = setup(name)
    trunk = jax.jit(models.prefill, static_argnames="config")(params, config, trunks, lengths)
    want = jax.jit(models.extend, static_argnames="config")(params, config, trunk, inputs)
    step = jax.jit(models.decode, static_argnames="config")
    for chunk in (1, 4, 16):
        cache = models.init_cache(config, len(LENGTHS), G, T + 2, chunk)
        for t in range(T):
            base = jnp.full((len(LENGTHS), G), t // chunk * chunk)
            hidden, cache = step(params, config, (trunk,), inputs[..., t], cache, base, t % chunk)
            np.testing.assert_allclose(hidden, want[:, :, t], atol=2e-5)
            cache = models.flush(cache, base) if t % chunk == chunk - 1 else cache


def test_neither_the_bucket_nor_its_padding_matters():
    config, params, trunks, lengths, inputs, targets = setup("gemma2")
    want = branched(params, config, trunks, lengths, inputs, targets)[0]
    padding = jnp.arange(P) < P - lengths[:, None]
    garbage = jnp.where(padding, (trunks * 7 + 3) % V, trunks)
    np.testing.assert_array_equal(branched(params, config, garbage, lengths, inputs, targets)[0], want)
    wider = jnp.pad(trunks, ((0, 0), (8, 0)), constant_values=5)
    np.testing.assert_allclose(branched(params, config, wider, lengths, inputs, targets)[0], want, atol=1e-5)


def test_trunk_keeps_one_window_of_keys_in_local_layers():
    config, params, trunks, lengths, *_ = setup("gemma2")
    layers = jax.eval_shape(lambda: models.prefill(params, config, trunks, lengths)).layers["blocks"]
    assert layers["0"][0].shape == (2, len(LENGTHS), 2, WINDOW, 16)
    assert layers["1"][0].shape == (2, len(LENGTHS), 2, P, 16)


def test_branches_do_not_see_each_other():
    config, params, trunks, lengths, inputs, targets = setup("gemma2")
    want = branched(params, config, trunks, lengths, inputs, targets)[0]
    other = inputs.at[:, 1:].set((inputs[:, 1:] + 1) % V)
    np.testing.assert_array_equal(branched(params, config, trunks, lengths, other, targets)[0][:, 0], want[:, 0])


@pytest.mark.parametrize("cap", [0.0, 50.0, 80.0])
def test_attention_over_nothing_changes_no_bit_of_what_it_is_combined_with(cap):
    rng = np.random.default_rng(0)
    # Scores far below zero: a peak of 0 would underflow where nothing caps them.
    q, k, v = (rng.standard_normal(shape, np.float32) for shape in ((2, 3, 5, 8), (2, 7, 8), (2, 7, 8)))
    k -= 100 * q[:, 0, 0, None] * (cap == 0)
    q, k, v = map(jnp.asarray, (q, k, v))
    part = attention.partial(q, k, v, jnp.ones((5, 7), bool), cap)
    empty = attention.empty_partial(q.shape, cap, q.dtype)
    assert float(np.abs(empty.out).max()) == float(np.abs(empty.sum).max()) == 0
    for got, want in zip(attention.combine(empty, part), part, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("cap", [0.0, 50.0])
def test_how_much_of_the_past_is_read_changes_no_bit(cap):
    """Branches have up to 20 columns; the longest one beside them decides how many are read."""
    rng, S = np.random.default_rng(0), 160
    q, k, v = (rng.standard_normal(s, np.float32) for s in ((2, 3, 2, 2, 16), (2, 3, 2, 16, S), (2, 3, 2, S, 16)))
    q, k, v = map(jnp.asarray, (q, k, v))
    base = jnp.asarray(rng.integers(1, 21, (2, 3)), jnp.int32)
    assert decoding.segments(S) == [(0, 32), (32, 64), (64, 128), (128, 160)] and decoding.segments(24) == [(0, 24)]
    past = [(k[..., start:stop], v[..., start:stop, :]) for start, stop in decoding.segments(S)]

    @jax.jit
    def attend(longest):
        return decoding.attend_past(q, past, base, longest, base, None, cap)

    first, *others = (attend(longest) for longest in (20, 33, 65, 129))
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, first)
    scores = np.einsum("BGKMH,BGKHS->BGKMS", q, k)
    scores = cap * np.tanh(scores / cap) if cap else scores
    weights = np.exp(scores) * (np.arange(S) < np.asarray(base)[:, :, None, None, None])
    want = np.einsum("BGKMS,BGKSH->BGKMH", weights, v) / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(attention.merge(first), want, rtol=2e-5, atol=2e-6)
    assert not float(np.abs(attend(0).sum).max())


@pytest.mark.parametrize("alike", [False, True])
def test_a_chunk_goes_where_it_belongs_in_the_past_and_nowhere_else(alike):
    config, rng, C = CONFIGS["gemma2"], np.random.default_rng(0), 8
    cache = models.init_cache(config, 2, 3, 100, C)
    cache = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32)), cache)
    base = np.full((2, 3), 72) if alike else np.array([[0, 24, 32], [56, 64, 120]])
    flushed = models.flush(cache, jnp.int32(72) if alike else jnp.asarray(base))
    for name, (k, v) in cache.recent["blocks"].items():
        for new, number, axis in ((np.swapaxes(k, -1, -2), 0, -1), (v, 1, -2)):
            want, got = (
                np.moveaxis(np.concatenate([pair[number] for pair in c.past["blocks"][name]], axis), axis, 3).copy()
                for c in (cache, flushed)
            )
            for b, g in np.ndindex(2, 3):
                want[:, b, g, base[b, g] : base[b, g] + C] = np.moveaxis(new, axis, 3)[:, b, g]
            np.testing.assert_array_equal(got, want)


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


def test_a_score_depends_on_no_other_row():
    hidden, weights = (np.random.default_rng(0).standard_normal(shape, np.float32) for shape in ((163, 1, 64), (64,)))
    order = np.random.default_rng(1).permutation(len(hidden))
    score = jax.jit(lambda hidden: heads.score({"score": jnp.asarray(weights)}, hidden))
    np.testing.assert_array_equal(score(hidden[order]), np.asarray(score(hidden))[order])
    np.testing.assert_allclose(score(hidden), hidden @ weights, atol=1e-5)
