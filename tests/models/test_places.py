"""Completions one behind the other: where they lie by hand, and log-probabilities and gradients as on branches of their own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import LENGTHS, WINDOW, G, P, T, branched, setup

from spct_jax import models
from spct_jax.models import tiles
from spct_jax.models.places import Places

RNG = np.random.default_rng(0)
COMPLETIONS = jnp.array(RNG.integers(0, T + 1, (len(LENGTHS), G)).tolist()[:-1] + [[0, T, 1]])


def test_places_by_hand():
    """Two tokens of the prompt, then completions of 3, 0 and 2 tokens, in 9 slots."""
    places = Places.of(jnp.array([[3, 0, 2]]), jnp.array([2]), 9)
    np.testing.assert_array_equal(places.first[0], [2, 5, 5])
    np.testing.assert_array_equal(places.begins[0, :7], [0, 0, 2, 2, 2, 5, 5])
    np.testing.assert_array_equal(places.positions[0, :7], [0, 1, 2, 3, 4, 2, 3])
    seen = [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 5], [0, 1, 5, 6]]
    assert [np.flatnonzero(row).tolist() for row in places.visible(None)[0, :7]] == seen
    # A window of three: position 4 sees 2, 3 and 4; position 2 of the last completion both of the prompt and itself.
    seen[3:5], seen[6] = [[1, 2, 3], [2, 3, 4]], [1, 5, 6]
    assert [np.flatnonzero(row).tolist() for row in places.visible(3)[0, :7]] == seen
    prompts, inputs = jnp.array([[0, 0, 11, 12, 13, 14]]), jnp.arange(21, 36).reshape(1, 3, 5)
    read = places.inputs(prompts, inputs)[0, 0]
    np.testing.assert_array_equal(read[:7], [13, 14, 21, 22, 23, 31, 32])
    np.testing.assert_array_equal(places.trunks(prompts, 3)[0], [0, 11, 12])
    np.testing.assert_array_equal(places.divide(read[None, None], 4)[0], [[21, 22, 23, 0], [0] * 4, [31, 32, 0, 0]])


@functools.partial(jax.jit, static_argnames=("config", "trunk_slots", "slots"))
def joined(params, config, trunks, lengths, inputs, targets, *, trunk_slots, slots):
    """As `small_models.branched`, with the completions one behind the other, and what a trunk cannot hold before them."""
    rest = jnp.maximum(lengths - trunk_slots, 0)
    places = Places.of(COMPLETIONS, rest, slots)
    prompts = models.Prompts(places.trunks(trunks, trunk_slots), lengths - rest)
    inputs, targets = places.inputs(trunks, inputs), places.join(targets)
    found = models.token_logprobs(params, config, prompts, inputs, targets, places=places)
    return [places.divide(x, T) for x in found]


@pytest.mark.parametrize(("name", "trunk_slots"), [("gemma2", 5), ("gemma2", P), ("gemma3", WINDOW + 3)])
def test_values_and_gradients_are_those_of_branches_of_their_own(name, trunk_slots, monkeypatch):
    """In pieces, too, the last of which is not full: 10 of 13 slots."""
    config, params, *data = setup(name)
    slots = int((jnp.maximum(data[1] - trunk_slots, 0) + COMPLETIONS.sum(1)).max()) + 2
    if trunk_slots == 5:
        few = dataclasses.replace(tiles.here(), branch_scores=10 * (trunk_slots + slots))
        monkeypatch.setitem(tiles.PLATFORMS, "cpu", few)
    inside = jnp.arange(T) < COMPLETIONS[..., None]
    weights = jax.random.normal(jax.random.key(3), (2, *inside.shape))

    def loss(params, forward):
        found = [jnp.where(inside, x, 0) for x in forward(params, config, *data)]
        return sum((x * w).sum() for x, w in zip(found, weights, strict=True)), found

    by_joining = functools.partial(joined, trunk_slots=trunk_slots, slots=slots)
    (want, want_found), (got, found) = (
        jax.jit(jax.grad(functools.partial(loss, forward=forward), has_aux=True))(params) for forward in (branched, by_joining)
    )
    np.testing.assert_allclose(found, want_found, atol=1e-5)
    error = jax.tree.map(lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b)), got, want)
    assert max(jax.tree.leaves(error)) <= 1e-5, error
