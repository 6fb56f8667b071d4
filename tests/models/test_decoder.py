"""The decoder: its parameters, and its trunks and branches against the plain forward pass over complete sequences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import CONFIGS, LENGTHS, WINDOW, P, V, branched, plain_gradient, setup

from spct_jax import models
from spct_jax.errors import InputError
from spct_jax.models import sizes

CONFIG = dataclasses.replace(sizes.toy(97), num_heads=4, num_kv_heads=2, head_dim=16, ffw_width=192, query_scale=0.25, window=8)
GEMMA3 = dataclasses.replace(
    CONFIG,
    num_layers=3,
    pattern=("local", "global"),
    attn_softcap=0.0,
    final_softcap=0.0,
    qk_norm=True,
    rope_base_global=1e6,
    rope_scale_global=8.0,
)


initial = functools.partial(jax.jit(models.init, static_argnums=0), key=jax.random.key(0))
extend = jax.jit(models.extend, static_argnums=1)


def shapes(tree):
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_parameters_are_stacked_by_the_pattern():
    config = dataclasses.replace(GEMMA3, num_layers=8, pattern=("local", "local", "global"))
    params = jax.eval_shape(lambda: models.init(config, jax.random.key(0)))
    assert set(params) == {"embedder", "blocks", "remainder", "final_norm"}
    assert set(params["blocks"]) == {"0", "1", "2"} and set(params["remainder"]) == {"0", "1"}
    found = shapes(params)
    assert found["['embedder']['input_embedding']"] == (97, 64)
    assert found["['blocks']['2']['attn']['q']"] == (2, 64, 4, 16)
    assert found["['blocks']['0']['attn']['k_norm']['scale']"] == (2, 16)
    assert found["['remainder']['1']['attn']['out']"] == (4, 16, 64)
    assert found["['remainder']['0']['mlp']['down']"] == (192, 64)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_init_gives_each_layer_its_own_numbers_of_the_right_size():
    params = initial(CONFIG)
    q = params["blocks"]["0"]["attn"]["q"]
    assert not np.allclose(q[0], q[1]) and not np.allclose(q[0], params["blocks"]["1"]["attn"]["q"][0])
    assert np.std(q) == pytest.approx(64**-0.5, rel=0.05)
    assert np.std(params["blocks"]["0"]["mlp"]["down"]) == pytest.approx(192**-0.5, rel=0.05)
    assert not np.any(params["blocks"]["0"]["post_ffw_norm"]["scale"])


def test_default_types_of_64_bits_change_nothing():
    config = dataclasses.replace(GEMMA3, tied=False)
    sequences = jax.random.randint(jax.random.key(1), (2, 12), 0, V)

    def computed():
        params = initial(config)
        return params, jax.jit(models.logits, static_argnums=1)(params, config, sequences)

    wanted = computed()
    with jax.enable_x64(True):
        found = computed()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
    jax.tree.map(np.testing.assert_array_equal, wanted, found)


@pytest.mark.parametrize("config", [CONFIG, GEMMA3])
def test_unrolled_stack_and_remat_change_nothing(config):
    params = initial(config)
    tokens = jax.random.randint(jax.random.key(1), (2, 3, 6), 0, 97)
    trunk = jax.jit(models.prefill, static_argnums=1)(params, config, tokens[:, 0], jnp.array([6, 4]))
    want = extend(params, config, trunk, tokens)
    flat_params, flat_config = models.unroll(params, config)
    flat_trunk = jax.jit(models.prefill, static_argnums=1)(flat_params, flat_config, tokens[:, 0], jnp.array([6, 4]))
    assert flat_config.repeats == 1 and not flat_config.remainder
    np.testing.assert_allclose(extend(flat_params, flat_config, flat_trunk, tokens), want, atol=1e-5)
    remat = extend(params, dataclasses.replace(config, remat="full"), trunk, tokens)
    np.testing.assert_allclose(remat, want, atol=1e-5)


def test_bfloat16_activations_keep_float32_logits_near_the_float32_ones():
    params = initial(CONFIG)
    tokens = jax.random.randint(jax.random.key(1), (2, 20), 0, 97)
    logits = jax.jit(models.logits, static_argnums=1)
    half = logits(params, dataclasses.replace(CONFIG, dtype="bfloat16"), tokens)
    full = logits(params, CONFIG, tokens)
    assert half.dtype == jnp.float32
    assert float(jnp.abs(half - full).mean()) < 0.05


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_equal_the_plain_forwards(name):
    config, params, *data = setup(name)
    config = dataclasses.replace(config, remat="full" if name == "gemma3" else "none")
    weights = jax.random.normal(jax.random.key(3), data[-1].shape)

    def loss(params):
        return (branched(params, config, *data, time_chunk=5)[0] * weights).sum()

    (want, _), got = plain_gradient(params, config, weights, *data), jax.jit(jax.grad(loss))(params)
    error = jax.tree.map(lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b)), got, want)
    assert max(jax.tree.leaves(error)) <= 1e-5, error


@pytest.mark.parametrize("name", CONFIGS)
def test_branches_on_a_trunk_are_those_of_its_prompt(name):
    """What is trained beside its prompts is what is drawn on trunks."""
    config, params, trunks, lengths, *rest = setup(name)
    prefill = functools.partial(models.prefill, params, config)
    want = branched(params, config, trunks, lengths, *rest)
    got = branched(params, config, trunks, lengths, *rest, read=prefill)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_neither_the_bucket_nor_its_padding_matters():
    config, params, trunks, lengths, inputs, targets = setup("gemma2")
    want = branched(params, config, trunks, lengths, inputs, targets)[0]
    padding = jnp.arange(P) < P - lengths[:, None]
    garbage = jnp.where(padding, (trunks * 7 + 3) % V, trunks)
    np.testing.assert_array_equal(branched(params, config, garbage, lengths, inputs, targets)[0], want)
    wider = jnp.pad(trunks, ((0, 0), (8, 0)), constant_values=5)
    np.testing.assert_allclose(branched(params, config, wider, lengths, inputs, targets)[0], want, atol=1e-5)


READS = {"prefill": models.prefill, "beside": lambda _, config, *prompts: models.Prompts(*prompts)}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_prompts_of_one_token_need_no_slots_of_a_trunk(read):
    params = initial(CONFIG)
    sequences = jax.random.randint(jax.random.key(1), (2, 1, 12), 0, V)
    none = jnp.zeros((2, 0), jnp.int32), jnp.zeros(2, jnp.int32)
    hidden = jax.jit(lambda params: models.extend(params, CONFIG, read(params, CONFIG, *none), sequences))(params)
    wanted = models.logits(params, CONFIG, sequences[:, 0])
    np.testing.assert_allclose(models.unembed(params, CONFIG, hidden)[:, 0], wanted, atol=1e-4)


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


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (np.array([[1, 40]]), "^tokens: 40 is outside the vocabulary of 40$"),
        (jnp.array([[-1, 3]]), "^tokens: -1 is outside the vocabulary of 40$"),
        (np.ones((1, 2)), "^tokens: token ids must be integers, got float64$"),
    ],
)
def test_ids_that_no_table_has_are_refused_and_not_clipped(tokens, said):
    config = dataclasses.replace(sizes.toy(40), num_layers=1)
    with pytest.raises(InputError, match=said):
        models.check_tokens(config, tokens)
    if np.issubdtype(tokens.dtype, np.integer):  # tests check the types of arguments themselves
        with pytest.raises(InputError, match=said):
            models.logits({}, config, jnp.asarray(tokens))
