"""Products of two arrays that are added up in float32, in both directions."""

from __future__ import annotations

import re
import string

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def einsum(equation: str, x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    """An einsum of two arrays of one dtype, in float32.

    In bfloat16 the gradient that arrives is rounded to it, too, before it enters the two products of the backward pass. Left in
    float32 it would make those products of float32 numbers: at half the rate on a GPU, and with twice the bytes everywhere. A
    TPU's matrix unit rounds them in any case. Not in float16, which small gradients would fall out of.

    Args:
      equation: of capital letters. In bfloat16, axes that "..." stands for are the same in all terms that have it.
      x: the first factor.
      y: the second.
    """
    return (_rounded if x.dtype == jnp.bfloat16 else _plain)(equation, x, y)


def _plain(equation, x, y):
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


_rounded = jax.custom_vjp(_plain, nondiff_argnums=(0,))


def _forward(equation, x, y):
    return _plain(equation, x, y), (x, y)


def _backward(equation, factors, gradient):
    x, y = factors
    rest = string.ascii_lowercase[: x.ndim - len(equation.partition(",")[0].removeprefix("..."))]
    of_x, of_y, of_sums = re.split(",|->", equation.replace("...", rest))
    gradient = gradient.astype(x.dtype)
    # In float32 for as long as the sums may go on over devices.
    to_x, to_y = _plain(f"{of_sums},{of_y}->{of_x}", gradient, y), _plain(f"{of_x},{of_sums}->{of_y}", x, gradient)
    return to_x.astype(x.dtype), to_y.astype(y.dtype)


_rounded.defvjp(_forward, _backward)
