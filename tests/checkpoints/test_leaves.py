"""Trees of arrays."""

import jax.numpy as jnp
import pytest

from spct_jax import checkpoints
from spct_jax.errors import InputError


def test_weights_that_overflow_the_dtype_asked_for_are_refused():
    checkpoints.check_finite({"a": jnp.full(3, 1e6)}, "there")
    with pytest.raises(InputError, match=r"weights of there hold NaN or infinite numbers \(in b/c\)"):
        checkpoints.check_finite({"a": jnp.ones(3), "b": {"c": jnp.full(3, 1e6).astype("float16")}}, "there")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(value, dtype):
    x = jnp.full((3, 5, 33), -7, dtype)
    assert checkpoints.first_not_finite({"a": x, "b": jnp.int32(3), "c": jnp.zeros((0, 2))}) is None
    for at in ((0, 0, 0), (1, 4, 16), (2, 4, 32)):
        assert checkpoints.first_not_finite({"a": jnp.ones(2), "b": x.at[at].set(float(value))}) == "b"
