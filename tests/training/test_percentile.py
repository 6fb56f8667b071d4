"""The percentile that is merged over micro-batches and devices."""

import jax
import jax.numpy as jnp
import numpy as np

from spct_jax.training.metrics import EDGES, Percentile


def test_a_percentile_is_that_of_the_counted_values_to_one_per_cent():
    rng = np.random.default_rng(0)
    logs, mask = rng.normal(0, 0.3, (4, 50)).astype(np.float32), rng.random((4, 50)) < 0.7
    logs[0, :2], mask[0, :2] = (-40, 40), True
    made = jax.jit(Percentile.of_exp, static_argnums=2)
    whole = made(logs, jnp.asarray(mask, jnp.float32), 95)
    assert whole.histogram.dtype == jnp.float32 and whole.histogram.sum() == mask.sum()
    assert whole.histogram[0] >= 1 and whole.histogram[-1] >= 1
    parts = [made(logs[rows], jnp.asarray(mask[rows], jnp.float32), 95) for rows in (slice(0, 2), slice(2, 4))]
    np.testing.assert_array_equal(parts[0].merge(parts[1]).histogram, whole.histogram)
    values = np.sort(np.clip(np.exp(logs[mask]), EDGES[0], EDGES[-1]))
    want = values[int(np.ceil(0.95 * len(values))) - 1]
    assert want * 0.999 <= whole.compute() <= want * 1.011
    assert made(logs, jnp.zeros((4, 50)), 95).compute() == 0


def test_what_is_beyond_the_edges_counts_at_the_nearer_one_also_where_no_integer_holds_it():
    logs = jnp.array([-np.inf, -1e9, -1.0, 3.0, 1e9, np.inf])
    found = Percentile.of_exp(logs, jnp.ones(6), 95).histogram
    assert found[0] == 3 and found[-1] == 3
