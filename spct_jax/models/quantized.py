"""Int8 numbers with scales instead of floats: the weights, keys and values that completions are drawn with.

A quantised array is a `qwix.QArray`: int8 numbers in the shape of the array and float32 scales, one for all numbers that a
product adds up, so one for every output channel of a weight and for every token and head of keys and values. An element is its
number times its scale, and half a scale off at most.

In a product, numbers are read in the dtype of the other factor, which holds them exactly, and the sums are multiplied by the
scales. `qwix.dot_general` would multiply first where the other factor is a float, and so round every weight to bfloat16.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from spct_jax.models import products
from spct_jax.sharding import logical

SUMMED = {
    "input_embedding": (-1,),
    "output_embedding": (-1,),
    "q": (-3,),
    "k": (-3,),
    "v": (-3,),
    "out": (-3, -2),
    "gate": (-2,),
    "up": (-2,),
    "down": (-2,),
}
"""The axes that a product with a weight adds up, by the names of `logical.PARAM_LOGICAL_AXES`. Tables as in logits."""


@runtime_checkable
class Quantized(Protocol):
    """A `qwix.QArray`, for whoever takes one without importing qwix, which need not be installed."""

    qvalue: Any
    scale: Any


def is_quantized(x: Any) -> bool:
    """Whether x is a quantised array."""
    return isinstance(x, Quantized)


def quantize(x: Float[Array, "..."], summed: tuple[int, ...]) -> Quantized:
    """Quantises x, with one scale, the largest magnitude / 127.5, for all elements along the axes `summed`, from the end."""
    import qwix  # an extra, which only this option needs

    kept = set(range(x.ndim)) - {axis % x.ndim for axis in summed}
    return qwix.quantize(x.astype(jnp.float32), jnp.int8, channelwise_axes=sorted(kept))


def zeros(shape: tuple[int, ...], axis: int, dtype: Any, quantize: str) -> Float[Array, "..."] | Quantized:
    """Zeros of a dtype, or as `ModelConfig.quantize` says, with one scale for all elements along an axis.

    Not by `quantize`: XLA would compute the scales of an array of zeros while it compiles, which takes it seconds.
    """
    if quantize == "none":
        return jnp.zeros(shape, dtype)
    import qwix  # an extra, which only this option needs

    scales = tuple(1 if i == axis % len(shape) else size for i, size in enumerate(shape))
    return qwix.QArray(jnp.zeros(shape, jnp.int8), jnp.ones(scales, jnp.float32), qtype=jnp.int8)


def like(x: Float[Array, "..."], other: Any, axis: int) -> Float[Array, "..."] | Quantized:
    """The same x, or quantised along an axis if another array is."""
    return quantize(x, (axis,)) if is_quantized(other) else x


def quantize_params(params: Any) -> Any:
    """Parameters with the large ones quantised; those that are so already are left as they are."""

    def one(path, x):
        if logical.is_part(path) or not logical.is_large(path, x.ndim):
            return x
        return quantize(x, SUMMED[logical.param_name(path)])

    return jax.tree_util.tree_map_with_path(one, params)


def matmul(x: Float[Array, "R D"], w: Float[Array, "D F"] | Quantized) -> Float[Array, "R F"]:
    """The product of x with a weight, in float32."""
    return _scaled(functools.partial(products.einsum, "RD,DF->RF"), x, w)


def logits(hidden: Float[Array, "... D"], table: Float[Array, "V D"] | Quantized) -> Float[Array, "... V"]:
    """The product of hidden states with the rows of a table, in float32."""
    product = functools.partial(products.einsum, "...D,VD->...V")
    return _scaled(product, hidden, table, lambda scale: scale[:, 0])


def rows(table: Float[Array, "V D"] | Quantized, index: Int[Array, "..."]) -> Float[Array, "... D"]:
    """Rows of a table, in float32, in which their gradients are added up as well: a token can be in thousands of places."""
    if is_quantized(table):
        return table.qvalue[index].astype(jnp.float32) * table.scale[index]
    return _rows(jax.ShapeDtypeStruct(table.shape, table.dtype), table, index)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rows(shape, table, index):
    return table[index].astype(jnp.float32)


def _rows_forward(shape, table, index):
    return _rows(shape, table, index), index


def _rows_backward(shape, index, gradient):
    take = jax.linear_transpose(lambda table: table[index], jax.ShapeDtypeStruct(shape.shape, jnp.float32))
    return take(gradient)[0].astype(shape.dtype), None


_rows.defvjp(_rows_forward, _rows_backward)


def scores(equation: str, q: Float[Array, "..."], k: Float[Array, "..."] | Quantized, axis: int) -> Float[Array, "... S"]:
    """Products of queries with keys by an einsum, in float32; the keys' heads are along `axis`, -1 or -2."""
    product = functools.partial(products.einsum, equation)
    return _scaled(product, q, k, lambda scale: scale if axis == -2 else jnp.swapaxes(scale, -1, -2))


def weighed(
    equation: str, weights: Float[Array, "... S"], v: Float[Array, "... S H"] | Quantized, dtype: Any
) -> Float[Array, "... H"]:
    """Sums of values by an einsum with weights, which are rounded to `dtype`; float32."""
    if is_quantized(v):
        weights, v = weights * jnp.swapaxes(v.scale, -1, -2), v.qvalue.astype(dtype)
    return products.einsum(equation, weights.astype(dtype), v)


def _scaled(product, x, w, to_result=lambda scale: scale):
    """product(x, w), where sums are multiplied by the scales of w as `to_result` lays them out."""
    return product(x, w.qvalue.astype(x.dtype)) * to_result(w.scale) if is_quantized(w) else product(x, w)
