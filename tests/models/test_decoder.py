import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax import models
from spct_jax.errors import InputError
from spct_jax.models import attention, layers, rotary, sizes

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


def test_norm_is_computed_in_float32_and_scaled_before_the_cast():
    x = jax.random.normal(jax.random.key(0), (3, 64)).astype(jnp.bfloat16) * 100
    scale = jax.random.normal(jax.random.key(1), (64,))
    got = layers.RMSNorm(1e-6).apply({"params": {"scale": scale}}, x)
    y = np.asarray(x, np.float64)
    want = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) * (1 + np.asarray(scale, np.float64))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, jnp.asarray(want, jnp.float32).astype(jnp.bfloat16))


def test_rope_depends_on_distance_only_and_divides_positions_by_the_scale():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 16))

    def product(i, j, scale=1.0):
        def turn(x, at):
            return rotary.rotate(x, rotary.tables(jnp.array([at]), 16, 1e4, scale))

        return float(jnp.vdot(turn(q, i), turn(k, j)))

    assert product(7, 3) == pytest.approx(product(104, 100), abs=1e-4)
    assert product(7, 3) != pytest.approx(product(7, 4), abs=1e-3)
    assert product(16, 8, scale=8.0) == pytest.approx(product(2, 1), abs=1e-5)


@pytest.mark.parametrize("cap", [0.0, 50.0])
def test_parts_merge_into_one_softmax_and_an_invisible_part_weighs_nothing(cap):
    keys = jax.random.split(jax.random.key(0), 3)
    q = jax.random.normal(keys[0], (2, 3, 5, 8)) * 4
    k, v = (jax.random.normal(key, (2, 11, 8)) for key in keys[1:])
    mask = jax.random.bernoulli(jax.random.key(4), 0.7, (5, 11)).at[:, -1].set(True).at[2, :6].set(False)
    scores = jnp.where(mask, attention.softcap(jnp.einsum("KMTH,KSH->KMTS", q, k), cap), -jnp.inf)
    want = jnp.einsum("KMTS,KSH->KMTH", jax.nn.softmax(scores, -1), v)
    parts = [attention.partial(q, k[:, part], v[:, part], mask[:, part], cap) for part in (slice(6), slice(6, 11))]
    np.testing.assert_allclose(attention.merge(*parts), want, atol=2e-6)


@pytest.mark.parametrize("cap", [0.0, 5.0])
def test_one_query_in_parts_equals_attention_to_all_keys_at_once(cap):
    B, G, K, M, H, S, U = 2, 3, 2, 2, 8, 7, 2
    keys = jax.random.split(jax.random.key(0), 5)
    q = jax.random.normal(keys[0], (B, G, K, M, H))
    trunk_k, trunk_v = (jax.random.normal(key, (U, B, K, S, H)) for key in keys[1:3])
    own_k, own_v = (jax.random.normal(key, (B, G, K, 5, H)) for key in keys[3:])
    lengths, place, times = jnp.array([[7, 3], [2, 6]]), jnp.array([[0, 1, 1], [1, 0, 0]]), jnp.array([[0, 2, 4]] * B)
    visible = [attention.trunk_mask(lengths[:, u], S, times, 6) & (place == u)[..., None] for u in range(U)]
    on_own = attention.causal_mask(times, jnp.arange(5), 6)
    got = attention.merge(
        *(attention.one_query_on_trunk(q, trunk_k[u], trunk_v[u], visible[u], cap) for u in range(U)),
        attention.one_query_on_branch(q, jnp.swapaxes(own_k, -1, -2), own_v, on_own, cap),
    )
    for b, g in np.ndindex(B, G):
        u, time = int(place[b, g]), int(times[b, g])
        trunk_times = range(max(-int(lengths[b, u]), time - 5), 0)
        chosen = [S + t for t in trunk_times]
        k = jnp.concatenate([trunk_k[u, b][:, chosen], own_k[b, g][:, : time + 1]], axis=1)
        v = jnp.concatenate([trunk_v[u, b][:, chosen], own_v[b, g][:, : time + 1]], axis=1)
        weights = jax.nn.softmax(attention.softcap(jnp.einsum("KMH,KSH->KMS", q[b, g], k), cap), axis=-1)
        np.testing.assert_allclose(got[b, g], jnp.einsum("KMS,KSH->KMH", weights, v), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cap", [0.0, 50.0])
def test_parts_without_a_visible_key_change_no_bit(cap):
    k, v = (jax.random.normal(jax.random.key(i), (1, 9, 8)) for i in range(2))
    q = jax.random.normal(jax.random.key(2), (1, 1, 1, 8))
    seen = attention.partial(q, k, v, jnp.ones((1, 9), bool), cap)
    unseen = attention.partial(q, k + 1, v, jnp.zeros((1, 9), bool), cap)
    for parts in ((seen, unseen), (unseen, seen), (unseen, seen, unseen)):
        np.testing.assert_array_equal(attention.merge(*parts), attention.merge(seen))


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


def test_score_head_maps_hidden_states_to_scalars():
    head = models.init_score_head(CONFIG, jax.random.key(0))
    hidden = jax.random.normal(jax.random.key(1), (2, 3, 64)).astype(jnp.bfloat16)
    got = models.score(head, hidden)
    assert head["score"].shape == (64,) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.asarray(hidden, np.float32) @ np.asarray(head["score"]), rtol=1e-4, atol=1e-5)


def test_what_is_computed_again_is_one_of_three():
    with pytest.raises(InputError, match="model.remat: 'half' is none of none, full, dots"):
        dataclasses.replace(sizes.toy(), remat="half")
