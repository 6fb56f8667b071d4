"""Attention within trunks, in blocks of queries, against one masked softmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax.models import trunk_attention


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize(("length", "own"), [(200, 200), (200, 60), (300, 300), (300, 240), (700, 700), (700, 300)])
def test_blocks_of_queries_equal_one_masked_softmax(length, own, window):
    """One block, two that are not full, and several; of all slots, or of the last ones where there is a prefix."""
    shapes = [(2, 2, 2, length, 8), (2, 2, length, 8), (2, 2, length, 8)]
    q, k, v = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
    lengths = jnp.array([length, 131])
    got = jax.jit(trunk_attention.attend_trunk, static_argnums=(4, 5))(q[..., -own:, :], k, v, lengths, window, 50.0)
    slots = np.arange(length)
    distance = slots[:, None] - slots
    seen = (distance >= 0) & (distance < (window or length)) & (slots >= length - lengths[:, None, None])
    scores = 50 * jnp.tanh(jnp.einsum("BKMTH,BKSH->BKMTS", q, k) / 50)
    weights = jax.nn.softmax(jnp.where(seen[:, None, None], scores, -jnp.inf), axis=-1)
    want = jnp.einsum("BKMTS,BKSH->BKMTH", weights, v)
    for b, real in enumerate(np.asarray(lengths)):
        shown = min(own, real)
        np.testing.assert_allclose(got[b, :, :, -shown:], want[b, :, :, -shown:], atol=1e-5)
    assert np.isfinite(got).all()


@pytest.mark.parametrize("window", [None, 100, 1024])
@pytest.mark.parametrize("prefix", [0, 50])
@pytest.mark.parametrize("length", [1, 256, 257, 1000, 4095])
def test_blocks_cover_every_query_and_every_key_it_sees(length, prefix, window):
    blocks, slots = trunk_attention.query_blocks(length, window, prefix), prefix + length
    assert len(blocks) <= trunk_attention.MOST_BLOCKS
    assert [slot for block in blocks for slot in block.queries] == [*range(prefix, slots)]
    assert all(block.keys.start <= max(0, block.queries.start + 1 - (window or slots)) for block in blocks)
    assert all(block.keys.stop >= block.queries.stop for block in blocks)
