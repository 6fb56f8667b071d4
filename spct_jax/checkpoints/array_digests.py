"""Digests of arrays, which tell one that was altered from the one that was saved.

A digest depends on the bits of every element and on its index, not on how the array is split over devices. It is computed
where the array is, so that no process needs all of it: by a program for each shape, which for small arrays on CPUs would take
longer to compile than NumPy takes to do the same.
"""

import functools
import os
from collections.abc import Sequence
from concurrent import futures
from types import ModuleType
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
BLOCK = 1 << 17
"""Elements that are hashed at once: few enough that what is computed of them stays in a cache."""
LARGE = 1 << 22
"""Elements from which on an array on CPUs has a program too."""

Digest = dict[str, np.ndarray]
"""UInt32[2] by dtype: sums, over all elements, of a hash of the element and its index along every axis."""


def of_tree(tree: Any) -> dict[str, dict[str, Any]]:
    """For every leaf, by name: `shape`, `dtype`, and the digest of its bits under the name of the dtype.

    A leaf of float32 or bfloat16 has a digest for each of the two, of the leaf cast to it: a reader may restore it in either.
    """
    leaves = [(name, jnp.asarray(leaf)) for name, leaf in named_leaves(tree)]
    small, large = ([leaf for _, leaf in leaves if _is_for_host(leaf) == host] for host in (True, False))
    with compiling.threads(os.cpu_count() or 1) as pool, futures.ThreadPoolExecutor(os.cpu_count() or 1) as host:
        programs = {kind: pool.submit(_program, *kind) for kind in {_kind(leaf): None for leaf in large}}
        of_small = host.map(_by_host, small)
        # One after the other: on CPUs, programs that sum over devices wait for each other's threads if many run at once.
        of_large = iter([jax.device_get(programs[_kind(leaf)].result()(leaf)) for leaf in large])
        found = [next(of_small if _is_for_host(leaf) else of_large) for _, leaf in leaves]
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


def _is_for_host(array: jax.Array) -> bool:
    on_cpus = array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices())
    return on_cpus and array.size < LARGE


def _by_host(array: jax.Array) -> Digest:
    dtype, found = str(array.dtype), {}
    for shard in array.addressable_shards:
        if shard.replica_id:
            continue
        bits, starts = _bits(np, np.asarray(shard.data), [along.start or 0 for along in shard.index])
        shape = bits.shape
        outer = [_indices(np, seed, shape[:-1], starts).reshape(-1, 1) for seed in SEEDS]
        inner = [_along(np, seed, len(shape) - 1, shape[-1], starts[-1]) for seed in SEEDS]
        table = bits.reshape(len(outer[0]), shape[-1])
        rows = max(BLOCK // max(shape[-1], 1), 1)
        for first in range(0, max(len(table), 1), rows):
            own = [indices[first : first + rows] for indices in outer]
            if array.ndim:
                own = [_mix(indices + along) for indices, along in zip(own, inner, strict=True)]
            for name, x in _words(np, table[first : first + rows], dtype).items():
                sums = [np.sum(_mix(x ^ index), dtype=np.uint32) for index in own]
                found[name] = found.get(name, np.uint32(0)) + np.array(sums)
    return found


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
    """The digest, traced; `array` may be part of one whose indices there begin at `starts` along the first axes."""
    dtype, (bits, starts) = str(array.dtype), _bits(jnp, array, starts)
    shape = bits.shape
    outer = [_indices(jnp, seed, shape[:-1], starts).reshape(-1) for seed in SEEDS]
    table = bits.reshape(len(outer[0]), shape[-1])
    rows = min(max(BLOCK // max(shape[-1], 1), 1), len(table))

    def add_block(number, sums):
        """Adds, to UInt32[column] by seed and dtype, a block's rows; the last block may begin before its own rows do."""
        start = jnp.minimum(number * rows, len(table) - rows)
        own = (start + jnp.arange(rows) >= number * rows)[:, None]
        words = _words(jnp, lax.dynamic_slice_in_dim(table, start, rows), dtype)
        added = []
        for seed, indices, so_far in zip(SEEDS, outer, sums, strict=True):
            index = lax.dynamic_slice_in_dim(indices, start, rows)[:, None]
            if array.ndim:
                index = _mix(index + _along(jnp, seed, len(shape) - 1, shape[-1], starts[-1]))
            # Along columns, many of which XLA's CPU backend adds up at a time; along a row it adds number by number.
            mixed = {name: jnp.where(own, _mix(x ^ index), 0) for name, x in words.items()}
            added.append({name: so_far[name] + jnp.sum(x, axis=0, dtype=jnp.uint32) for name, x in mixed.items()})
        return added

    found = [dict.fromkeys(_words(jnp, table[:0], dtype), jnp.zeros(shape[-1], jnp.uint32)) for _ in SEEDS]
    if rows:
        found = lax.fori_loop(0, -(-len(table) // rows), add_block, found)
    return {name: jnp.stack([jnp.sum(sums[name], dtype=jnp.uint32) for sums in found]) for name in found[0]}


def _indices(xp: ModuleType, seed: int, shape: tuple[int, ...], starts: Sequence[jax.Array | int]) -> Any:
    """UInt32 of this shape: a hash of the indices along all of its axes. Computed by `xp`, numpy or jax.numpy, as all below."""
    index = xp.full((1,) * len(shape), seed, xp.uint32)
    for axis, length in enumerate(shape):
        along = _along(xp, seed, axis, length, starts[axis])
        index = _mix(index + along.reshape((-1,) + (1,) * (len(shape) - axis - 1)))
    return index


def _along(xp: ModuleType, seed: int, axis: int, length: int, start: jax.Array | int) -> Any:
    """UInt32[length]: a hash of the indices along one axis."""
    places = xp.arange(length, dtype=xp.uint32) + xp.asarray(start, xp.uint32)
    return _mix(places + np.uint32((seed * (2 * axis + 3)) & 0xFFFFFFFF))


def _bits(xp: ModuleType, array: Any, starts: Sequence[jax.Array | int]) -> tuple[Any, tuple[jax.Array | int, ...]]:
    """(unsigned bits of every element, one axis at least, the last of 2 for elements of 8 bytes; where each axis begins)."""
    if array.dtype == bool:
        array = array.astype(xp.uint8)
    size = array.dtype.itemsize
    unsigned = {1: xp.uint8, 2: xp.uint16, 4: xp.uint32, 8: xp.uint32}[size]
    if xp is jnp:
        bits = lax.bitcast_convert_type(array, unsigned)
    else:
        bits = array.reshape(*array.shape, 1).view(unsigned).reshape(array.shape + (2,) * (size == 8))
    bits = bits.reshape(bits.shape or (1,))
    return bits, (*starts, *(0,) * (bits.ndim - len(starts)))


def _words(xp: ModuleType, bits: Any, dtype: str) -> dict[str, Any]:
    """UInt32 of elements of a dtype, given their bits, by the dtype that they may be read in."""
    bits = bits.astype(xp.uint32)
    if dtype == "bfloat16":
        return {"bfloat16": _one_nan(xp, bits), "float32": bits << 16}
    if dtype == "float32":
        # Rounded to the nearest, ties to even, in integers: arithmetic on floats may flush subnormal numbers to zero.
        nan = (bits & 0x7FFFFFFF) > 0x7F800000
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return {"bfloat16": _one_nan(xp, xp.where(nan, xp.uint32(0x7FC0), rounded)), "float32": bits}
    return {dtype: bits}


def _one_nan(xp: ModuleType, bits: Any) -> Any:
    """Bits of bfloat16 with one NaN for all: what a NaN is cast to is not defined."""
    return xp.where((bits & 0x7FFF) > 0x7F80, xp.uint32(0x7FC0), bits)


def _mix(x: Any) -> Any:
    """The finaliser of MurmurHash3, one to one on 32 bits."""
    x = x ^ (x >> 16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> 13
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> 16
    return x
