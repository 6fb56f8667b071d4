"""Int8 weights, keys and values: products within the rounding of each number, and decoding as with what they stand for."""

import dataclasses
import importlib.util
import pathlib

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import LENGTHS, G, setup

from spct_jax import checkpoints, models
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.errors import InputError
from spct_jax.models import attention, layers, quantized, sizes, tiles
from spct_jax.sharding import logical

qwix = pytest.importorskip("qwix", reason="needs qwix (pip install -e '.[dev]')")

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"


def dequantized(tree):
    """The same tree in floats."""
    floats = jax.tree.map(
        lambda x: qwix.dequantize(x) if quantized.is_quantized(x) else x, tree, is_leaf=quantized.is_quantized
    )
    return jax.tree.map(jnp.asarray, floats)


def quantized_alike(tree, axis=-1):
    return jax.tree.map(lambda x: quantized.quantize(x, (axis,)), tree)


@pytest.mark.parametrize("name", sorted(logical.PARAM_LOGICAL_AXES))
def test_a_weight_is_off_by_half_a_scale_at_most_and_a_product_by_the_sum_of_that(name):
    rng = np.random.default_rng(0)
    shape = (24, 6, 10) if len(logical.PARAM_LOGICAL_AXES[name]) == 3 else (24, 60)
    w = jnp.asarray(rng.standard_normal(shape, np.float32) * np.exp(rng.standard_normal(shape[-1])))
    params = {name: w.at[..., 3].set(0)}
    made = quantized.quantize_params(params)[name]
    summed = [axis % w.ndim for axis in quantized.SUMMED[name]]
    assert made.qvalue.dtype == jnp.int8 and made.scale.dtype == jnp.float32
    assert made.scale.shape == tuple(1 if axis in summed else size for axis, size in enumerate(shape))
    off = np.abs(np.asarray(qwix.dequantize(made), np.float64) - np.asarray(params[name], np.float64))
    assert (off <= np.asarray(made.scale) * 0.5001).all() and off.max() > 0

    matrices = [jnp.moveaxis(x, summed, range(len(summed))) for x in (params[name], made.qvalue, made.scale)]
    size = int(np.prod([shape[axis] for axis in summed]))
    w, number, scale = (x.reshape(size if x.shape[0] > 1 else 1, -1) for x in matrices)
    x = jnp.asarray(rng.standard_normal((5, size), np.float32))
    got = quantized.matmul(x, qwix.QArray(number, scale))
    bound = np.abs(np.asarray(x, np.float64)).sum(-1, keepdims=True) * np.asarray(scale) / 2
    assert (np.abs(got - np.asarray(x, np.float64) @ np.asarray(w, np.float64)) <= bound * 1.001 + 1e-5).all()


def test_in_bfloat16_numbers_are_exact_and_only_activations_are_rounded():
    """`qwix.dot_general` multiplies by bfloat16 scales before the product, which costs accuracy and no less memory."""
    rng = np.random.default_rng(1)
    w, x = rng.standard_normal((256, 32), np.float32), jnp.asarray(rng.standard_normal((8, 256)), jnp.bfloat16)
    made = quantized.quantize(jnp.asarray(w), (-2,))
    want = np.asarray(x, np.float64) @ np.asarray(qwix.dequantize(made), np.float64)
    np.testing.assert_allclose(quantized.matmul(x, made), want, atol=2e-5 * np.abs(want).max())
    first = qwix.dot_general(x, made.astype(jnp.bfloat16), (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    assert np.abs(first - want).max() > 1e-3


@pytest.mark.parametrize(("fixture", "limit"), [("gemma2_tiny", 0.03), ("gemma3_tiny", 0.045)])
def test_logits_of_a_checkpoint_are_off_by_little(fixture, limit):
    """By 2.4 and 3.8 %, norm by norm. Where the largest of a channel is three deviations, a weight is off by 0.7 % of one, and
    dozens of products follow each other.
    """
    params, config = models.load_hf(FIXTURES / fixture)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, config.vocab_size, (2, 32)))
    logits = jax.jit(models.logits, static_argnames="config")
    want = logits(params, config, tokens)
    got = logits(jax.jit(quantized.quantize_params)(params), config, tokens)
    assert 1e-4 < jnp.linalg.norm(got - want) / jnp.linalg.norm(want) < limit


@pytest.mark.parametrize("cap", [0.0, 50.0])
def test_attention_to_int8_keys_and_values_equals_numpy_with_what_they_stand_for(cap):
    rng = np.random.default_rng(2)
    q = jnp.asarray(rng.standard_normal((2, 3, 2, 2, 16), np.float32))
    trunk = [quantized.quantize(jnp.asarray(rng.standard_normal((2, 2, 20, 16), np.float32)), (-1,)) for _ in range(2)]
    k = quantized.quantize(jnp.asarray(rng.standard_normal((2, 3, 2, 16, 9), np.float32)), (-2,))
    v = quantized.quantize(jnp.asarray(rng.standard_normal((2, 3, 2, 9, 16), np.float32)), (-1,))
    masks = [jnp.asarray(rng.random((2, 3, size)) < 0.7) for size in (20, 9)]
    parts = attention.one_query_on_trunk(q, *trunk, masks[0], cap), attention.one_query_on_branch(q, k, v, masks[1], cap)

    def floats(x):
        return np.asarray(x.qvalue, np.float64) * np.asarray(x.scale, np.float64)

    keys = [np.einsum("BGKMH,BKSH->BGKMS", q, floats(trunk[0])), np.einsum("BGKMH,BGKHS->BGKMS", q, floats(k))]
    scores = np.concatenate(keys, -1)
    scores = cap * np.tanh(scores / cap) if cap else scores
    weights = np.exp(scores) * np.concatenate(masks, -1)[:, :, None, None]
    weights /= weights.sum(-1, keepdims=True)
    want = np.einsum("BGKMS,BKSH->BGKMH", weights[..., :20], floats(trunk[1]))
    want += np.einsum("BGKMS,BGKSH->BGKMH", weights[..., 20:], floats(v))
    np.testing.assert_allclose(attention.merge(*parts), want, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "held"), [("gemma2", {}), ("gemma3", {"time_last": False, "first_segment": 8})], ids=["as_on_cpu", "as_on_tpu"]
)
def test_decoding_equals_that_with_floats_of_the_same_values(name, held, monkeypatch):
    """Weights, the trunk and the past are int8; at each step another model is given what all of them stand for, in float32."""
    monkeypatch.setitem(tiles.PLATFORMS, "cpu", dataclasses.replace(tiles.here(), **held))
    jax.clear_caches()
    config, params, trunks, lengths, inputs, _ = setup(name)
    config = dataclasses.replace(config, quantize="int8")
    params, C, B = jax.jit(quantized.quantize_params)(params), 4, len(LENGTHS)
    trunk = jax.jit(models.prefill, static_argnames="config")(params, config, trunks, lengths)
    trunk = trunk.replace(layers=quantized_alike(trunk.layers))
    step, flush = jax.jit(models.decode, static_argnames="config"), jax.jit(models.flush)
    cache = models.init_cache(config, B, G, 12, C)
    assert all(x.dtype in (jnp.int8, jnp.float32) for x in jax.tree.leaves(cache.past))
    for t in range(9):
        base = jnp.full((B, G), t // C * C)
        floats = dequantized((params, trunk, cache))
        want, _ = step(floats[0], config, (floats[1],), inputs[..., t], floats[2], base, t % C)
        hidden, cache = step(params, config, (trunk,), inputs[..., t], cache, base, t % C)
        np.testing.assert_allclose(hidden, want, atol=1e-5)
        if t % C == C - 1:
            recent, cache = cache.recent, flush(cache, base)
            # The first segment of the past holds what the chunk stands for, in the columns that it was read at.
            for (k, v), (new_k, new_v) in zip(
                [segments[0] for segments in cache.past["blocks"].values()], recent["blocks"].values(), strict=True
            ):
                k = dequantized(k) if tiles.here().time_last else dequantized(k).swapaxes(-1, -2)
                columns = slice(t + 1 - C, t + 1)
                if t < v.shape[-2]:
                    np.testing.assert_allclose(k[..., columns], dequantized(quantized_alike(new_k)).swapaxes(-1, -2), atol=1e-6)
                    np.testing.assert_allclose(dequantized(v)[..., columns, :], dequantized(quantized_alike(new_v)), atol=1e-6)


def test_a_layer_takes_weights_of_either_kind():
    config = dataclasses.replace(sizes.toy(40), num_kv_heads=1)
    params = compiled.init(config, jax.random.key(0))["blocks"]["0"]
    layer, made = (jax.tree.map(lambda x: x[0], tree) for tree in (params, jax.jit(quantized.quantize_params)(params)))
    x, rope = jnp.ones((2, 3, config.width)), (jnp.ones((3, 16)), jnp.zeros((3, 16)))

    @jax.jit
    def applied(weights):
        return layers.Block(config).apply({"params": weights}, x, rope, lambda q, k, v: (q, None))[0]

    want, got, exact = map(applied, (dequantized(made), made, layer))
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(got - exact).max() > 1e-4


def test_no_checkpoint_says_how_it_was_drawn_from(tmp_path):
    config, tokenizer = sizes.toy(300), train_tokenizer(["a judge reads " * 20], vocab_size=300)
    for name, quantize in (("a", "none"), ("b", "int8")):
        checkpoints.describe(tmp_path / name, dataclasses.replace(config, quantize=quantize), tokenizer)
    assert (tmp_path / "a" / "model.json").read_text() == (tmp_path / "b" / "model.json").read_text()
    assert checkpoints.read_architecture(tmp_path / "b") == config


def test_it_is_said_what_has_to_be_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^model.quantize='int8' needs qwix: pip install 'spct_jax\[quantize\]'$"):
        dataclasses.replace(sizes.toy(), quantize="int8")
    assert dataclasses.replace(sizes.toy(), quantize="none") == sizes.toy()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_of_a_tables_rows_are_added_up_in_float32(dtype):
    """In bfloat16 a sum of ones would end at 256."""
    rng = np.random.default_rng(0)
    index = jnp.asarray([[2] * 4096, [0, *[1] * 4095]])
    weights = 1 + rng.standard_normal((*index.shape, 3), np.float32) / 4
    table = jnp.asarray(rng.standard_normal((4, 3)), dtype)
    rows, pull = jax.vjp(lambda table: quantized.rows(table, index), table)
    (got,) = pull(jnp.asarray(weights))
    np.testing.assert_array_equal(rows, np.asarray(table, np.float32)[index])
    want = np.zeros((4, 3))
    np.add.at(want, np.asarray(index), weights)
    assert rows.dtype == jnp.float32 and got.dtype == table.dtype
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol={"float32": 1e-5, "bfloat16": 2**-8}[dtype])
