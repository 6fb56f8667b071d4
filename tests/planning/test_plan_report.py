"""What a plan makes of the programs of an update."""

import jax
import jax.numpy as jnp
import pytest

from spct_jax import hardware
from spct_jax.planning import report
from spct_jax.planning.programs import Planned
from spct_jax.training.micro_batches import Part


def test_programs_of_an_update_add_up_and_the_one_that_needs_most_counts(tmp_path):
    """One called three times, a larger one that other steps need, and a small one with most beside."""

    def product(size, times, beside):
        shape = jax.ShapeDtypeStruct((size, size), jnp.float32)
        return Part(jax.jit(jnp.dot).lower(shape, shape), times, beside)

    chip, parts = hardware.CHIPS["v5e"], [product(32, 3, 0), product(64, 0, 10), product(16, 1, 40_000)]
    planned = Planned(lambda: parts, 3 * 2 * 32**3 + 2 * 16**3, 1, beside=1_000)
    found = report.measure(planned, "v5e:1x1", [None], chip, tmp_path)
    assert found["flops"] == found["flops_by_hand"] and found["fits"]
    assert found["bytes"] == pytest.approx(3 * 3 * 4 * 32**2 + 3 * 4 * 16**2)
    assert found["peak"] + found["beside"] == max(3 * 4 * 64**2 + 1_010, 3 * 4 * 16**2 + 41_000)
    assert len([*tmp_path.iterdir()]) == 3
    assert report.measure(planned, "v5e:1x1", [None], chip, tmp_path) == found
