"""The TPU kernel within trunks against the XLA reference, interpreted here; a step is compiled for a slice where libtpu is."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import limits
import numpy as np
import pytest

from spct_jax import sharding
from spct_jax.errors import InputError
from spct_jax.models import sizes, splash, trunk_attention
from spct_jax.sharding.config import MeshConfig

B, K, M, P, H = 2, 2, 2, 250, 128


@pytest.mark.parametrize(
    ("own", "window", "cap", "strategy"),
    [(P, None, 50.0, None), (P, 100, 5.0, None), (P, None, 0.0, "fsdp_tensor"), (90, None, 0.0, None), (140, 100, 5.0, None)],
)
def test_the_kernel_is_the_reference_with_gradients(own, window, cap, strategy):
    """To 1e-5 of the norm; one trunk is short, and no block divides P. Sharded: rows over two devices, heads over two.

    With fewer queries of their own the trunks have a prefix, which ends before or among the slots of the short one.
    """
    shapes = [(B, K, M, own, H), (B, K, P, H), (B, K, P, H)]
    data = [jax.random.normal(jax.random.key(i), shape) * H**-0.25 for i, shape in enumerate(shapes)]
    lengths = jnp.array([P, 131])
    real = (jnp.arange(P - own, P) >= P - lengths[:, None])[:, None, None, :, None]
    layout = strategy and sharding.make_layout(MeshConfig(strategy=strategy, tensor=2), jax.devices()[:4])

    def of(attend, **options):
        def loss(q, k, v):
            out = jnp.where(real, attend(q, k, v, lengths, window, cap, **options), 0)
            return jnp.sin(out).sum(), out

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))

    want = of(trunk_attention.attend_trunk)(*data)
    if layout:
        with layout.constraints():
            got = of(splash.attend_trunk, interpret=True)(*data)
    else:
        got = of(splash.attend_trunk, interpret=True)(*data)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


def test_head_dims_the_kernel_cannot_take_are_named():
    with pytest.raises(InputError, match="model.head_dim to be a multiple of 128, got 32"):
        dataclasses.replace(sizes.toy(), attention="splash")


COMPILE = """
import dataclasses
from spct_jax.runtime import hardware
hardware.prepare(hardware.CHIPS["v5e"])
import jax, numpy as np
from spct_jax import models, sharding
from spct_jax.config import MeshConfig
from spct_jax.data.batches import Groups
from spct_jax.models import sizes
from spct_jax.training import sft
config = dataclasses.replace(sizes.toy(512), num_layers=2, head_dim=128, remat="full", attention="splash")
layout = sharding.make_layout(MeshConfig(strategy="fsdp_tensor", tensor=2), hardware.slice_devices("v5e:2x2", 1))
ints = lambda *shape: jax.ShapeDtypeStruct(shape, np.int32)
groups = Groups(trunk_tokens=ints(4, 255), trunk_lengths=ints(4), inputs=ints(4, 2, 17), lengths=ints(4, 2))
params = jax.eval_shape(lambda: models.init(config, jax.random.key(0)))
def gradients(params, groups):
    with layout.constraints():
        return jax.grad(lambda params: sft.sft_loss(params, config, groups, groups.lengths.sum(dtype="float32"))[0])(params)
split = layout.params(params)
step = jax.jit(gradients, in_shardings=(split, layout.sharding("batch")), out_shardings=split)
for shape in None, (128, 64):  # completions side by side, and one behind the other
    text = step.lower(params, groups.replace(shape=shape)).compile().as_text()
    print(text.count("tpu_custom_call"))
"""


@pytest.mark.parametrize("prefix", [0, 600])
@pytest.mark.parametrize(
    ("length", "window"), [(100, None), (1000, 300), (1000, None), (4095, 1024), (4095, 4096), (4095, None)]
)
def test_the_kernels_blocks_are_those_in_which_a_query_sees_a_key(length, window, prefix):
    queries, keys = map(splash.padded, (length, prefix + length))
    rows, columns = splash.block_size(queries), splash.block_size(keys)
    distance = np.arange(keys - queries, keys)[:, None] - np.arange(keys)
    seen = (distance >= 0) & (distance < (window or keys))
    visited = seen.reshape(queries // rows, rows, -1, columns).any((1, 3)).sum() * rows * columns
    assert sum(block.scores for block in splash.query_blocks(length, window, prefix)) == visited


@pytest.mark.parametrize(
    ("length", "slots"), [(100, 128), (250, 256), (300, 512), (640, 768), (871, 1024), (1224, 1280), (4095, 4096), (4600, 4608)]
)
def test_blocks_of_128_are_for_short_sequences_only(length, slots):
    assert splash.padded(length) == slots
    assert splash.block_size(slots) == (128 if length <= 128 else 256 if slots % 512 else 512)


@pytest.mark.tpu_compiler
def test_a_sharded_step_with_the_kernels_compiles_for_a_slice():
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, timeout=limits.SECONDS)
    assert done.returncode == 0, done.stderr[-2000:]
    # Forward, again in the backward pass, and two gradients: of branches in both layers, of trunks in the one that is read.
    assert done.stdout.split()[-2:] == ["12", "12"]
