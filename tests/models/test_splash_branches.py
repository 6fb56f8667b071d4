"""The TPU kernel for branches against the XLA reference, interpreted here."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax import sharding
from spct_jax.models import attention, splash, splash_branches
from spct_jax.models.places import Places
from spct_jax.sharding.config import MeshConfig

B, K, M, S, H = 2, 2, 2, 150, 128
LENGTHS = jnp.array([S, 37])


def masks(places, T, window):
    slots = jnp.arange(T)
    positions = slots[None] if places is None else places.positions
    own = attention.causal_mask(slots, slots, window)[None] if places is None else places.visible(window)
    return attention.trunk_mask(LENGTHS, S, positions, window), own


@pytest.mark.parametrize(
    ("packed", "window", "cap", "strategy"),
    [(False, None, 50.0, "fsdp_tensor"), (False, 60, 0.0, None), (True, None, 0.0, None), (True, 60, 5.0, "fsdp_tensor")],
)
def test_the_kernel_is_the_reference_with_gradients(packed, window, cap, strategy):
    """To 1e-5 of the norm. Three branches, or three completions in one, of which one is empty, behind a part of their prompt.

    One trunk is short, the window ends among its slots, and no block divides a number of slots. Sharded: rows over two devices,
    heads over two.
    """
    G, T = (1, 130) if packed else (3, 70)
    places = Places.of(jnp.array([[40, 0, 70], [20, 30, 50]]), jnp.array([20, 0]), T) if packed else None
    shapes = [(B, G, K, M, T, H), (B, K, S, H), (B, K, S, H), (B, G, K, T, H), (B, G, K, T, H)]
    data = [jax.random.normal(jax.random.key(i), shape) * H**-0.25 for i, shape in enumerate(shapes)]
    layout = strategy and sharding.make_layout(MeshConfig(strategy=strategy, tensor=2), jax.devices()[:4])

    def of(attend):
        def loss(q, trunk_k, trunk_v, k, v):
            out = attend(q, (trunk_k, trunk_v), (k, v))
            return jnp.sin(out).sum(), out

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4), has_aux=True))(*data)

    want = of(lambda *arrays: attention.attend_branch(*arrays, masks(places, T, window), cap))
    with layout.constraints() if layout else contextlib.nullcontext():
        got = of(lambda *arrays: splash_branches.attend_branch(*arrays, LENGTHS, places, window, cap, interpret=True))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


@pytest.mark.parametrize(("G", "T", "trunk", "window"), [(4, 1024, 4096, None), (4, 1024, 1024, 1024), (3, 100, 300, 120)])
def test_scores_are_those_of_blocks_in_which_a_query_sees_a_key(G, T, trunk, window):
    """Key by key, with the trunk's keys at the end of their slots, and padding that sees itself."""
    queries, slots = splash.padded(G * T), splash.padded(trunk)
    rows, columns = splash.block_size(queries), splash.block_size(slots + queries)
    seen = np.zeros((queries, slots + queries), bool)
    for query in range(queries):
        g, t = divmod(query, T) if query < G * T else (0, 0)
        seen[query, slots + (g * T + max(0, t + 1 - (window or T)) if query < G * T else query) : slots + query + 1] = True
        if query < G * T:
            seen[query, slots - trunk + (max(0, trunk + t + 1 - window) if window else 0) : slots] = True
    visited = seen.reshape(queries // rows, rows, -1, columns).any((1, 3)).sum()
    assert splash_branches.scores(G, T, trunk, window) == visited * rows * columns
