"""Trees of arrays."""

import jax.numpy as jnp
import pytest

from spct_jax import checkpoints
from spct_jax.errors import InputError


def test_weights_that_overflow_the_dtype_asked_for_are_refused():
    checkpoints.check_finite({"a": jnp.full(3, 1e6)}, "there")
    with pytest.raises(InputError, match=r"weights of there hold NaN or infinite numbers \(in b/c\)"):
        checkpoints.check_finite({"a": jnp.ones(3), "b": {"c": jnp.full(3, 1e6).astype("float16")}}, "there")
