"""Digests of arrays, which tell one that was altered from the one that was saved.

A digest depends on the bits of every element and on its index, not on how the array is split over devices. It is computed
where the array is, so that no process needs all of it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spct_jax.checkpoints.leaves import named_leaves

SEEDS = (0x9E3779B9, 0x85EBCA6B)
"""Of the two 32-bit halves of an array's digest."""


def of_tree(tree: Any) -> dict[str, dict[str, Any]]:
    """For every leaf, by name: `shape`, `dtype`, and the digest of its bits under the name of the dtype.

    A leaf of float32 or bfloat16 has a digest for each of the two, of the leaf cast to it: a reader may restore it in either.
    """
    leaves = named_leaves(tree)
    # One after the other: on CPUs, programs that sum over devices wait for each other's threads if many run at once.
    found = [jax.device_get(_digests(leaf)) for _, leaf in leaves]
    return {
        name: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
        | {dtype: "".join(f"{half:08x}" for half in halves) for dtype, halves in digest.items()}
        for (name, leaf), digest in zip(leaves, found, strict=True)
    }


def differing(recorded: dict[str, dict[str, Any]], tree: Any) -> str | None:
    """The name of the first leaf of a tree whose digest is not the recorded one, None where all are."""
    for name, found in of_tree(tree).items():
        if recorded.get(name, {}).get(found["dtype"]) != found[found["dtype"]]:
            return name
    return None


def _digests(array: jax.Array | np.ndarray) -> dict[str, jax.Array]:
    """UInt32[2] by dtype."""
    array = jnp.asarray(array)
    return _program(array.shape, array.dtype, array.sharding)(array)


@functools.cache
def _program(shape: tuple[int, ...], dtype: np.dtype, sharding: jax.sharding.Sharding) -> jax.stages.Compiled:
    """Kept here, since every stage of training digests arrays of the same shapes and `memory.end_stage` clears JAX's cache."""

    def digests(array):
        return {dtype: _hash(words) for dtype, words in _words(array).items()}

    return jax.jit(digests).lower(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)).compile()


def _words(array: jax.Array) -> dict[str, jax.Array]:
    """UInt32 of every element by dtype, [.. 2] of an element of 8 bytes."""
    size, dtype = array.dtype.itemsize, str(array.dtype)
    if array.dtype == bool:
        array = array.astype(jnp.uint8)
    bits = lax.bitcast_convert_type(array, {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[size])
    bits = bits.astype(jnp.uint32)
    if dtype == "bfloat16":
        return {"bfloat16": _one_nan(bits), "float32": bits << 16}
    if dtype == "float32":
        # Rounded to the nearest, ties to even, in integers: arithmetic on floats may flush subnormal numbers to zero.
        nan = (bits & 0x7FFFFFFF) > 0x7F800000
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return {"bfloat16": _one_nan(jnp.where(nan, jnp.uint32(0x7FC0), rounded)), "float32": bits}
    return {dtype: bits}


def _one_nan(bits: jax.Array) -> jax.Array:
    """Bits of bfloat16 with one NaN for all: what a NaN is cast to is not defined."""
    return jnp.where((bits & 0x7FFF) > 0x7F80, jnp.uint32(0x7FC0), bits)


def _hash(words: jax.Array) -> jax.Array:
    """UInt32[2]: sums, over all elements, of a hash of the element and its index along every axis."""
    halves = []
    for seed in SEEDS:
        index = jnp.full((1,) * words.ndim, seed, jnp.uint32)
        for axis, length in enumerate(words.shape):
            along = _mix(jnp.arange(length, dtype=jnp.uint32) + np.uint32((seed * (2 * axis + 3)) & 0xFFFFFFFF))
            index = _mix(index + along.reshape((-1,) + (1,) * (words.ndim - axis - 1)))
        halves.append(jnp.sum(_mix(words ^ index), dtype=jnp.uint32))
    return jnp.stack(halves)


def _mix(x: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3, one to one on 32 bits."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
