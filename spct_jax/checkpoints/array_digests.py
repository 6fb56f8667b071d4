"""Digests of arrays, which tell one that was altered from the one that was saved.

A digest depends on the bits of every element and on its index, not on how the array is split over devices. It is computed
where the array is, so that no process needs all of it.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from spct_jax.checkpoints.leaves import named_leaves
from spct_jax.runtime import compiling

SEEDS = (0x9E3779B9, 0x85EBCA6B)
"""Of the two 32-bit halves of an array's digest."""
BLOCK = 1 << 16
"""Elements that are hashed at once: few enough that what is computed of them stays in a cache."""


def of_tree(tree: Any) -> dict[str, dict[str, Any]]:
    """For every leaf, by name: `shape`, `dtype`, and the digest of its bits under the name of the dtype.

    A leaf of float32 or bfloat16 has a digest for each of the two, of the leaf cast to it: a reader may restore it in either.
    """
    leaves = [(name, jnp.asarray(leaf)) for name, leaf in named_leaves(tree)]
    with compiling.threads(os.cpu_count() or 1) as pool:
        programs = {kind: pool.submit(_program, *kind) for kind in {_kind(leaf): None for _, leaf in leaves}}
        # One after the other: on CPUs, programs that sum over devices wait for each other's threads if many run at once.
        found = [jax.device_get(programs[_kind(leaf)].result()(leaf)) for _, leaf in leaves]
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


def _kind(array: jax.Array) -> tuple[tuple[int, ...], np.dtype, jax.sharding.Sharding]:
    """Arrays of one kind have one program."""
    return array.shape, array.dtype, array.sharding


@functools.cache
def _program(shape: tuple[int, ...], dtype: np.dtype, sharding: jax.sharding.Sharding) -> jax.stages.Compiled:
    """Gives UInt32[2] by dtype.

    Kept here, since every stage of training digests arrays of the same shapes and `memory.end_stage` clears JAX's cache.
    """
    digests = _of_part
    if isinstance(sharding, NamedSharding):
        # Each device goes through its own part, block by block; the compiler would gather blocks of an array that is split.
        axes = [(names,) if isinstance(names, str) else names or () for names in sharding.spec]

        def digests(part):
            starts = [lax.axis_index(names) * size if names else 0 for names, size in zip(axes, part.shape, strict=False)]
            return lax.psum(_of_part(part, starts), sum(axes, ()))

        digests = jax.shard_map(digests, mesh=sharding.mesh, in_specs=sharding.spec, out_specs=PartitionSpec(), check_vma=False)
    return jax.jit(digests).lower(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)).compile()


def _of_part(array: jax.Array, starts: Sequence[jax.Array | int] = ()) -> dict[str, jax.Array]:
    """UInt32[2] by dtype: sums, over all elements, of a hash of the element and its index along every axis.

    `array` may be part of one whose indices there begin at `starts` along the first axes, and at 0 along the others.
    """
    dtype, bits = str(array.dtype), _bits(array)
    shape = bits.shape or (1,)
    starts = (*starts, *(0,) * (len(shape) - len(starts)))
    outer = [_indices(seed, shape[:-1], starts).reshape(-1) for seed in SEEDS]
    table = bits.reshape(len(outer[0]), shape[-1])
    rows = min(max(BLOCK // max(shape[-1], 1), 1), len(table))

    def add_block(number, sums):
        """Adds, to UInt32[column] by seed and dtype, a block's rows; the last block may begin before its own rows do."""
        start = jnp.minimum(number * rows, len(table) - rows)
        own = (start + jnp.arange(rows) >= number * rows)[:, None]
        words = _words(lax.dynamic_slice_in_dim(table, start, rows), dtype)
        added = []
        for seed, indices, so_far in zip(SEEDS, outer, sums, strict=True):
            index = lax.dynamic_slice_in_dim(indices, start, rows)[:, None]
            if array.ndim:
                index = _mix(index + _along(seed, len(shape) - 1, shape[-1], starts[-1]))
            # Along columns, many of which XLA's CPU backend adds up at a time; along a row it adds number by number.
            mixed = {name: jnp.where(own, _mix(x ^ index), 0) for name, x in words.items()}
            added.append({name: so_far[name] + jnp.sum(x, axis=0, dtype=jnp.uint32) for name, x in mixed.items()})
        return added

    found = [dict.fromkeys(_words(table[:0], dtype), jnp.zeros(shape[-1], jnp.uint32)) for _ in SEEDS]
    if rows:
        found = lax.fori_loop(0, -(-len(table) // rows), add_block, found)
    return {name: jnp.stack([jnp.sum(sums[name], dtype=jnp.uint32) for sums in found]) for name in found[0]}


def _indices(seed: int, shape: tuple[int, ...], starts: Sequence[jax.Array | int]) -> jax.Array:
    """UInt32 of this shape: a hash of the indices along all of its axes."""
    index = jnp.full((1,) * len(shape), seed, jnp.uint32)
    for axis, length in enumerate(shape):
        along = _along(seed, axis, length, starts[axis])
        index = _mix(index + along.reshape((-1,) + (1,) * (len(shape) - axis - 1)))
    return index


def _along(seed: int, axis: int, length: int, start: jax.Array | int) -> jax.Array:
    """UInt32[length]: a hash of the indices along one axis."""
    places = jnp.arange(length, dtype=jnp.uint32) + jnp.asarray(start, jnp.uint32)
    return _mix(places + np.uint32((seed * (2 * axis + 3)) & 0xFFFFFFFF))


def _bits(array: jax.Array) -> jax.Array:
    """The bits of every element, unsigned; [.. 2] of an element of 8 bytes."""
    if array.dtype == bool:
        array = array.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[array.dtype.itemsize]
    return lax.bitcast_convert_type(array, unsigned)


def _words(bits: jax.Array, dtype: str) -> dict[str, jax.Array]:
    """UInt32 of elements of a dtype, given their bits, by the dtype that they may be read in."""
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


def _mix(x: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3, one to one on 32 bits."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
