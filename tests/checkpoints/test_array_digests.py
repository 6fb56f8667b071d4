"""Digests of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax.checkpoints import array_digests


def both_ways(tree):
    """The digests of a tree by NumPy; raises if those by a program are others."""
    found = {}
    for way, large in (("NumPy", 1 << 62), ("program", 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(array_digests, "LARGE", large)
            found[way] = array_digests.of_tree(tree)
    assert found["NumPy"] == found["program"]
    return found["NumPy"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_a_digest_sees_one_bit_and_every_change_of_order(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 2 if dtype == "bool" else 100, (4, 6, 8)), dtype)
    x = x.at[0, 0, 0].set(jnp.zeros((), dtype))
    changed = [x[::-1], x[:, ::-1], x[..., ::-1], jnp.concatenate([x[2:], x[:2]]), x[np.array([0, 2, 1, 3])]]
    changed += [x.swapaxes(1, 2).reshape(x.shape), x.at[0, 0, 0].set(jnp.ones((), dtype))]
    found = [both_ways({"x": y})["x"][dtype] for y in (x, *changed)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("spec", [("d",), (None, ("e", "d")), ("e", None, "d")])
def test_a_digest_does_not_depend_on_the_mesh(spec):
    x = jnp.arange(256.0).reshape(4, 8, 8)
    split = jax.device_put(x, jax.sharding.NamedSharding(jax.make_mesh((2, 1), ("d", "e")), jax.P(*spec)))
    assert not split.is_fully_replicated and both_ways(split) == both_ways(x)


def mixed(x):
    x = ((x ^ x >> 16) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ x >> 13) * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ x >> 16


@pytest.mark.parametrize("shape", [(), (5,), (0, 3), (3, 5, 2)])
def test_a_digest_is_a_sum_of_hashes_over_all_elements_block_by_block(shape, monkeypatch):
    monkeypatch.setattr(array_digests, "BLOCK", 6)
    array_digests._program.cache_clear()
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    halves = []
    for seed in array_digests.SEEDS:
        total = 0
        for index in np.ndindex(shape):
            h = seed
            for axis, i in enumerate(index):
                h = mixed((h + mixed((i + seed * (2 * axis + 3)) & 0xFFFFFFFF)) & 0xFFFFFFFF)
            total += mixed(int(x[index].view(np.uint32)) ^ h)
        halves.append(f"{total & 0xFFFFFFFF:08x}")
    assert both_ways({"x": x})["x"]["float32"] == "".join(halves)
    array_digests._program.cache_clear()


def test_a_large_array_is_hashed_in_little_memory():
    array = jax.ShapeDtypeStruct((4096, 640), jnp.float32)
    program = array_digests._program(array.shape, array.dtype, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    assert program.memory_analysis().temp_size_in_bytes < 4096 * 640


def test_arrays_of_all_dtypes_have_one_digest_whatever_computes_it():
    bits = np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8)
    tree = {dtype: bits.view(dtype) for dtype in ("uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32")}
    small = {
        "none": np.zeros((0, 3), np.float32),
        "one": np.float32(2),
        "bool": bits > 99,
        "bfloat16": jnp.asarray(bits, "bfloat16"),
    }
    assert len(both_ways(tree | small)) == len(tree | small)


def test_the_digest_of_what_a_reader_casts_to_is_saved_too():
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32)
    x = bits.view(np.float32)  # subnormal numbers, infinities and NaN among them
    cast = jnp.asarray(x).astype(jnp.bfloat16)
    recorded = array_digests.of_tree({"x": x})
    assert array_digests.differing(recorded, {"x": x}) is None
    assert array_digests.differing(recorded, {"x": cast}) is None
    assert both_ways({"x": cast})["x"]["float32"] == both_ways({"x": cast.astype(jnp.float32)})["x"]["float32"]
