"""Trunks that continue other trunks, against the plain forward pass over complete sequences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import CONFIGS, WINDOW, P, V, plain, plain_gradient, setup

from spct_jax import models

B = 8
OWN = (0, 1, 2, WINDOW - 1, WINDOW, 5, 3, WINDOW)


def tokens(key, rows, length):
    return jax.random.randint(jax.random.key(key), (rows, length), 0, V)


def right_aligned(rows):
    """The concatenation of the last `length` of each of the (tokens, length) pieces of every row, in P slots."""
    found = np.zeros((len(rows), P), np.int32)
    lengths = []
    for slots, pieces in zip(found, rows, strict=True):
        whole = np.concatenate([np.asarray(piece)[len(piece) - length :] for piece, length in pieces])
        lengths.append(len(whole))
        slots[P - len(whole) :] = whole
    return jnp.array(found), jnp.array(lengths)


def compare(name, trunks, lengths, tree):
    """Log-probabilities and gradients of branches on `tree(params, config)`, to 1e-5 of their norms."""
    config, params, _, _, inputs, targets = setup(name)
    config = dataclasses.replace(config, remat="full" if name == "gemma3" else "none")
    weights = jax.random.normal(jax.random.key(3), targets.shape)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params):
        trunk = tree(params, config)
        np.testing.assert_array_equal(trunk.layers["blocks"]["1"][0].shape[-2], P)
        found, _ = models.token_logprobs(params, config, trunk, inputs, targets)
        return (found * weights).sum(), found

    want, expected = plain_gradient(params, config, weights, trunks, lengths, inputs, targets)
    got, found = gradient(params)
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    error = jax.tree.map(lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b)), got, want)
    assert max(jax.tree.leaves(error)) <= 1e-5, error


@pytest.mark.parametrize("name", CONFIGS)
def test_a_tree_of_three_levels_is_the_plain_forward_with_gradients(name):
    """A preamble of one row, shorter than the window; two conversations behind it, one of them without it; eight own parts."""
    preamble, conversations, own = tokens(4, 1, 6), tokens(5, 2, 10), tokens(6, B, 8)
    preamble_lengths, conversation_lengths, own_lengths = jnp.array([6, 0]), jnp.array([3, 10]), jnp.array(OWN)
    of = jnp.array([0, 1] * (B // 2))

    def tree(params, config):
        first = models.prefill(params, config, preamble, jnp.array([6])).replace(lengths=preamble_lengths)
        second = models.prefill(params, config, conversations, conversation_lengths, first)
        layers = jax.tree.map(lambda x: jnp.take(x, of, axis=x.ndim - 4), second.layers)
        return models.prefill(params, config, own, own_lengths, models.Trunk(layers=layers, lengths=second.lengths[of]))

    rows = [
        [(preamble[0], preamble_lengths[i]), (conversations[i], conversation_lengths[i]), (own[b], OWN[b])]
        for b, i in enumerate(of)
    ]
    compare(name, *right_aligned(rows), tree)


@pytest.mark.parametrize("length", [1, P - WINDOW])
def test_rows_with_and_without_the_preamble(length):
    """A preamble of one token, and one longer than the window; every other row is without it."""
    config, params, *_, inputs, targets = setup("gemma2")
    preamble, own, lengths = tokens(4, 1, length), tokens(6, B, P - length), jnp.array(OWN)
    has = jnp.array([length, 0] * (B // 2))

    @jax.jit
    def logprobs(params):
        first = models.prefill(params, config, preamble, jnp.array([length]))
        prompts = models.Prompts(own, lengths, first.replace(lengths=has))
        return models.token_logprobs(params, config, prompts, inputs, targets)[0]

    rows = right_aligned([[(preamble[0], has[b]), (own[b], OWN[b])] for b in range(B)])
    want = plain(params, config, *rows, inputs, targets)[0]
    assert np.linalg.norm(logprobs(params) - want) <= 1e-5 * np.linalg.norm(want)


def test_padding_before_own_tokens_does_not_matter_and_a_row_depends_on_itself_alone():
    config, params, *_, inputs, targets = setup("gemma2")
    preamble, own, lengths = tokens(4, 1, 6), tokens(6, B, P - 6), jnp.array(OWN)

    @jax.jit
    def logprobs(own, lengths, has):
        first = models.prefill(params, config, preamble, jnp.array([6])).replace(lengths=has)
        trunk = models.prefill(params, config, own, lengths, first)
        return models.token_logprobs(params, config, trunk, inputs, targets)[0]

    want = logprobs(own, lengths, jnp.full(B, 6))
    garbage = jnp.where(jnp.arange(P - 6) < P - 6 - lengths[:, None], (own * 7 + 3) % V, own)
    np.testing.assert_array_equal(logprobs(garbage, lengths, jnp.full(B, 6)), want)
    others = logprobs(own.at[1:].add(1) % V, lengths.at[1:].set(4), jnp.array([6] + [0, 6] * 3 + [0]))
    np.testing.assert_array_equal(others[0], want[0])
