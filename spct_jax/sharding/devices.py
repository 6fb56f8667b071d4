"""Devices and the mesh they are arranged in.

A mesh has three axes: `data` (copies of the parameters; the slices of a multi-slice pod), `fsdp` (parameters and batch are
split) and `tensor` (heads, feed-forward and vocabulary are split).
"""

import importlib.util
import os
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh

from spct_jax.errors import InputError
from spct_jax.runtime import distributed, memory
from spct_jax.sharding.config import MeshConfig
from spct_jax.sharding.strategies import AXES


def use_devices(config: MeshConfig) -> None:
    """Splits the host's CPU into devices if the CPU is what JAX runs on; must be called before JAX is first used."""
    # By default a device that waits 40 s for another one ends the process; on a busy machine such a wait is no error.
    patience = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
    os.environ["XLA_FLAGS"] = f"{patience} {os.environ.get('XLA_FLAGS', '')}"
    jax.config.update("jax_num_cpu_devices", config.cpu_devices)
    if os.environ.get("JAX_PLATFORMS") == "cpu" or not any(map(importlib.util.find_spec, ("libtpu", "jax_plugins"))):
        memory.keep()


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh that `config` describes, of `devices` or of all that JAX sees.

    Raises:
      InputError: the devices cannot be arranged as `config` says.
    """
    devices = list(distributed.devices() if devices is None else devices)
    try:
        shape = config.axis_sizes(len(devices))
    except InputError as error:
        split = " (cpu_devices says into how many a CPU is split)" if devices[0].platform == "cpu" else ""
        raise InputError(f"{error}{split}") from None
    if config.slices > 1 and devices[0].platform == "tpu":
        arranged = mesh_utils.create_hybrid_device_mesh(
            (1, *shape[1:]), (config.slices, 1, 1), devices, allow_split_physical_axes=True
        )
    else:
        arranged = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(np.asarray(arranged).reshape(shape), AXES)
