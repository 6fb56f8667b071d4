"""Products with float32 sums, and what their gradients are multiplied in."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models

from spct_jax import models
from spct_jax.models import products


def dtypes(jaxpr, found):
    """Of both factors and the sums of every product in a jaxpr and in those inside it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found.add(tuple(str(x.aval.dtype) for x in (*equation.invars, *equation.outvars)))
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if inner := getattr(value, "jaxpr", value if hasattr(value, "eqns") else None):
                dtypes(inner, found)
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_an_update_multiplies_has_the_dtype_of_the_model(dtype):
    """In float16 gradients stay float32: its range is too small for them."""
    config, params, *batch = small_models.setup("gemma2")
    config = dataclasses.replace(config, dtype=dtype, remat="full")

    def loss(params, trunks, lengths, inputs, targets):
        return models.token_logprobs(params, config, models.prefill(params, config, trunks, lengths), inputs, targets)[0].sum()

    found = dtypes(jax.make_jaxpr(jax.grad(loss))(params, *batch).jaxpr, set())
    assert (dtype, dtype, "float32") in found
    assert (found == {(dtype, dtype, "float32")}) == (dtype != "float16")


@pytest.mark.parametrize(
    ("equation", "of_x", "of_y"),
    [
        ("RD,DF->RF", (5, 300), (300, 7)),
        ("...D,VD->...V", (2, 3, 5, 300), (7, 300)),
        ("...KMTH,...KSH->...KMTS", (2, 3, 2, 2, 5, 16), (2, 3, 2, 70, 16)),
        ("BKRS,BKSH->BKRH", (2, 2, 5, 300), (2, 2, 300, 16)),
    ],
)
def test_gradients_in_bfloat16_are_rounded_once_on_the_way_in_and_once_on_the_way_out(equation, of_x, of_y):
    x, y = (jax.random.normal(jax.random.key(i), shape, jnp.bfloat16) for i, shape in enumerate((of_x, of_y)))
    out, pull = jax.vjp(functools.partial(products.einsum, equation), x, y)
    g = jax.random.normal(jax.random.key(2), out.shape) * 1e-6
    rounded = g.astype(jnp.bfloat16).astype(jnp.float32)
    exact, exactly = jax.vjp(functools.partial(jnp.einsum, equation), x.astype(jnp.float32), y.astype(jnp.float32))
    np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-4)
    for got, want in zip(pull(g), exactly(rounded), strict=True):
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2**-8, atol=float(jnp.abs(want).max()) * 1e-5)


def test_a_product_of_float32_is_what_jax_makes_of_it():
    x, y, g = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(((5, 30), (30, 7), (5, 7))))
    ours = jax.vjp(lambda x, y: products.einsum("RD,DF->RF", x, y), x, y)
    plain = jax.vjp(lambda x, y: jnp.einsum("RD,DF->RF", x, y, preferred_element_type=jnp.float32), x, y)
    for got, want in zip((ours[0], *ours[1](g)), (plain[0], *plain[1](g)), strict=True):
        np.testing.assert_array_equal(got, want)
