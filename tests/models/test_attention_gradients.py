"""Gradients through attention against float64, with scores over all that a soft cap of 50 lets through."""

import dataclasses
import functools
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from spct_jax import models
from spct_jax.models import attention, decoder, layers, logprobs, rotary, sizes, splash, tiles, trunk_attention

CAP = 50.0
SWEEP = (-49.9, -45, -44, -30, 0, 30, 42, 44, 45, 49, 49.9)
"""Capped scores of the keys that count."""
SMALL = 1e-9
"""Size of the gradients that arrive, as they are where a loss is a mean over a large batch."""


def softmax_attention(q, k, v, mask, cancel):
    """Float64 [.. K M T H]; `mask` is broadcast against the scores [.. K M T S].

    Without `cancel`, the gradient is that of the weights before they are normalised.
    """
    scores = CAP * jnp.tanh(jnp.einsum("...KMTH,...KSH->...KMTS", q, k) / CAP)
    norm = jax.nn.logsumexp(jnp.where(mask, scores, -jnp.inf), axis=-1, keepdims=True)
    weights = jnp.exp(scores - (norm if cancel else lax.stop_gradient(norm))) * mask
    return jnp.einsum("...KMTS,...KSH->...KMTH", weights, v)


def data(shape_q, shape_k, score, keys, dtype, seed=0):
    """Queries, keys and values; the first `keys` keys of every head (all where None) have about this score after the cap."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal(shape) * shape[-1] ** -0.25 for shape in (shape_q, shape_k, shape_k))
    q[..., 0], k[..., 0] = 4, 0
    k[..., :keys, 0] = CAP * np.arctanh(score / CAP) / 4
    return [jnp.asarray(x, dtype) for x in (q, k, v)]


def gradient_of(function):
    """`(leaves, size)`: the gradient by each of the function's arguments, of a sum with random weights of this size."""

    def loss(leaves, size):
        out = function(*leaves)
        return jnp.sum(out * np.random.default_rng(2).standard_normal(out.shape).astype(out.dtype) * size)

    return jax.jit(jax.grad(loss), static_argnames="size")


@functools.cache
def exact_gradients(reference):
    """Of a reference, which is the same for all dtypes: the gradient, and its first term."""
    return [gradient_of(functools.partial(reference, cancel=cancel)) for cancel in (True, False)]


def sweep(attend, reference, make, tolerance):
    """Gradients by every leaf of `make(score, keys)` over the sweep; `attend` and `reference` are functions of the leaves.

    The gradient of a score is the difference of two terms. Errors are compared with the first, as its rounding is: where one
    key has all the weight, nothing else is left.
    """
    # Float16 has no smaller numbers for them.
    size = 1.0 if make(0.0, 1)[0].dtype == jnp.float16 else SMALL
    ours, (exact, first_term) = gradient_of(attend), exact_gradients(reference)
    for keys, score in itertools.product((1, 2, None), SWEEP):
        leaves = make(score, keys)
        with jax.enable_x64(True):
            wide = [jnp.asarray(np.asarray(x.astype(jnp.float32)), jnp.float64) for x in leaves]
            wanted, terms = exact(wide, size), first_term(wide, size)
        for got, want, term in zip(ours(leaves, size), wanted, terms, strict=True):
            error = np.linalg.norm(np.asarray(got, np.float64) - np.asarray(want)) / np.linalg.norm(term)
            assert error < tolerance, (keys, score, got.shape, error)


def causal(q, k, v, cancel):
    """Of a trunk that has no padding."""
    return softmax_attention(q, k, v, np.tri(q.shape[-2], dtype=bool), cancel)


def with_trunk(trunk, own):
    """Keys or values of branches behind those of their trunk."""
    return jnp.concatenate([jnp.broadcast_to(trunk[:, None], (*own.shape[:2], *trunk.shape[1:])), own], axis=-2)


def behind_a_trunk(q, trunk_k, trunk_v, k, v, cancel):
    """Of branches that see all of their trunk."""
    mask = np.tri(q.shape[-2], trunk_k.shape[-2] + k.shape[-2], trunk_k.shape[-2], dtype=bool)
    return softmax_attention(q, with_trunk(trunk_k, k), with_trunk(trunk_v, v), mask, cancel)


def last_query(q, trunk_k, trunk_v, k, v, cancel):
    """Of a query that sees all of the trunk and all of its branch."""
    return softmax_attention(q[..., None, :], with_trunk(trunk_k, k), with_trunk(trunk_v, v), True, cancel)[..., 0, :]


PRECISIONS = [("float32", 1e-4), ("bfloat16", 1e-2), ("float16", 2e-3)]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("length", [40, 300])
def test_gradient_at_large_scores_within_trunks(length, dtype, tolerance):
    """Of two heads with one block of queries, and of one with more."""
    heads, lengths = 2 if length == 40 else 1, jnp.array([length])
    shapes = (1, heads, 2, length, 16), (1, heads, length, 16)
    sweep(
        lambda q, k, v: trunk_attention.attend_trunk(q, k, v, lengths, None, CAP),
        causal,
        lambda score, keys: data(*shapes, score, keys, dtype),
        tolerance,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("pieces", [False, True])
def test_gradient_at_large_scores_of_branches(pieces, dtype, tolerance, monkeypatch):
    G, T, S = 3, 8, 40
    if pieces:
        monkeypatch.setitem(tiles.PLATFORMS, "cpu", dataclasses.replace(tiles.here(), branch_scores=4 * G * (S + T)))
    masks = jnp.ones((1, T, S), bool), jnp.tri(T, dtype=bool)[None]

    def make(score, keys):
        q, k, v = data((1, G, 2, 2, T, 16), (1, G, 2, T, 16), score, keys, dtype)
        return [q, *data(q.shape, (1, 2, S, 16), score, keys, dtype, seed=1)[1:], k, v]

    sweep(
        lambda q, trunk_k, trunk_v, k, v: attention.attend_branch(q, (trunk_k, trunk_v), (k, v), masks, CAP),
        behind_a_trunk,
        make,
        tolerance,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_gradient_at_large_scores_of_single_queries(dtype, tolerance):
    """As decoding attends: one query of each branch, on the trunk and on keys of its own."""
    G, T, S = 3, 8, 40

    def make(score, keys):
        q, k, v = data((1, G, 2, 2, 16), (1, G, 2, T, 16), score, keys, dtype)
        return [q, *data(q.shape, (1, 2, S, 16), score, keys, dtype, seed=1)[1:], k, v]

    def attend(q, trunk_k, trunk_v, k, v):
        on_trunk = attention.one_query_on_trunk(q, trunk_k, trunk_v, jnp.ones((1, G, S), bool), CAP)
        on_own = attention.one_query_on_branch(q, jnp.swapaxes(k, -1, -2), v, jnp.ones((1, G, T), bool), CAP)
        return attention.merge(attention.empty_partial(q.shape, CAP, q.dtype), on_trunk, on_own)

    sweep(attend, last_query, make, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS[:2])
def test_gradient_at_large_scores_of_the_kernel(dtype, tolerance):
    shapes, lengths = ((1, 1, 2, 128, 128), (1, 1, 128, 128)), jnp.array([128])
    sweep(
        lambda q, k, v: splash.attend_trunk(q, k, v, lengths, None, CAP, interpret=True),
        causal,
        lambda score, keys: data(*shapes, score, keys, dtype),
        tolerance,
    )


GEMMA2 = dataclasses.replace(sizes.toy(97), num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, query_scale=0.25, window=8)
GEMMA3 = dataclasses.replace(GEMMA2, attn_softcap=0.0, final_softcap=0.0, qk_norm=True, rope_base_global=1e6)


class InFloat64(types.ModuleType):
    """`jax.numpy`, in which float32 is float64."""

    def __getattr__(self, name):
        return getattr(jnp, "float64" if name == "float32" else name)


@pytest.mark.parametrize("config", [GEMMA2, GEMMA3], ids=["gemma2", "gemma3"])
def test_gradient_of_a_model_with_large_scores(config, monkeypatch):
    """Queries 20 times larger than at the start; by every parameter, through trunk and branches."""
    params = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    for block in params["blocks"].values():
        if config.qk_norm:
            block["attn"]["q_norm"]["scale"] = block["attn"]["q_norm"]["scale"] + 19
        else:
            block["attn"]["q"] = 20 * block["attn"]["q"]
    rng = np.random.default_rng(0)
    trunks, branches = (jnp.asarray(rng.integers(0, 97, shape), jnp.int32) for shape in ((2, 24), (2, 3, 7)))

    def gradient(params, config):
        def loss(params):
            trunk = decoder.prefill(params, config, trunks, jnp.array([24, 17]))
            scored, _ = logprobs.token_logprobs(params, config, trunk, branches[..., :-1], branches[..., 1:])
            return scored.mean()

        return jax.tree.map(np.asarray, jax.jit(jax.grad(loss))(params))

    got = gradient(params, config)
    for module in (attention, decoder, layers, logprobs, rotary):
        monkeypatch.setattr(module, "jnp", InFloat64("jax.numpy in float64"))
    with jax.enable_x64(True):
        wide = dataclasses.replace(config)
        object.__setattr__(wide, "dtype", "float64")
        want = gradient(jax.tree.map(functools.partial(np.asarray, dtype=np.float64), params), wide)
    assert {x.dtype for x in jax.tree.leaves(want)} == {np.dtype(np.float64)}
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        assert np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(b), jax.tree_util.keystr(path)
