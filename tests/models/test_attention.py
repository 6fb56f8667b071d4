"""Attention over several sets of keys as one softmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax.models import attention


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
