"""Digests of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax.checkpoints import array_digests


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_a_digest_sees_one_bit_and_every_change_of_order(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 2 if dtype == "bool" else 100, (4, 6, 8)), dtype)
    x = x.at[0, 0, 0].set(jnp.zeros((), dtype))
    changed = [x[::-1], x[:, ::-1], x[..., ::-1], jnp.concatenate([x[2:], x[:2]]), x[np.array([0, 2, 1, 3])]]
    changed += [x.swapaxes(1, 2).reshape(x.shape), x.at[0, 0, 0].set(jnp.ones((), dtype))]
    found = [array_digests.of_tree({"x": y})["x"][dtype] for y in (x, *changed)]
    assert len(set(found)) == len(found)


def test_a_digest_does_not_depend_on_the_mesh():
    x = jnp.arange(64.0).reshape(8, 8)
    split = jax.device_put(x, jax.sharding.NamedSharding(jax.make_mesh((2,), ("d",)), jax.P("d")))
    assert not split.is_fully_replicated and array_digests.of_tree(split) == array_digests.of_tree(x)


def test_the_digest_of_what_a_reader_casts_to_is_saved_too():
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32)
    x = bits.view(np.float32)  # subnormal numbers, infinities and NaN among them
    cast = jnp.asarray(x).astype(jnp.bfloat16)
    recorded = array_digests.of_tree({"x": x})
    assert array_digests.differing(recorded, {"x": x}) is None
    assert array_digests.differing(recorded, {"x": cast}) is None
    assert (
        array_digests.of_tree({"x": cast})["x"]["float32"]
        == array_digests.of_tree({"x": cast.astype(jnp.float32)})["x"]["float32"]
    )
