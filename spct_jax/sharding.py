"""Which devices hold what. The only file that knows mesh axes.

The one strategy so far is data parallel: trunks (B) are split over all devices with their branches, parameters and
optimiser state are on every device.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spct_jax.config import MeshConfig
from spct_jax.errors import InputError


def use_devices(config: MeshConfig) -> None:
    """Splits the host's CPU into devices where the CPU is what JAX runs on; must come before JAX is first used."""
    jax.config.update("jax_num_cpu_devices", config.cpu_devices)


def make_mesh() -> Mesh:
    """All devices on one axis, `data`."""
    return Mesh(np.array(jax.devices()), ("data",))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Puts a whole copy on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split(mesh: Mesh, tree: Any) -> Any:
    """Splits every array's first axis, B, over the devices.

    Raises:
      InputError: the devices do not divide B.
    """
    for leaf in jax.tree.leaves(tree):
        if leaf.shape[0] % mesh.size:
            raise InputError(f"a batch of {leaf.shape[0]} cannot be split over {mesh.size} devices; choose a multiple")
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec("data")))


def place_slots(mesh: Mesh, slots: Any) -> Any:
    """Splits the state of decoding over the devices by rows, B: the first axis, or the one behind a stack of layers.

    Raises:
      InputError: the devices do not divide B.
    """
    B = slots.done.shape[0]
    if B % mesh.size:
        raise InputError(f"{B} rows cannot be split over {mesh.size} devices; choose a multiple")

    def put(stacked: bool):
        spec = PartitionSpec(None, "data") if stacked else PartitionSpec("data")
        return lambda tree: jax.device_put(tree, NamedSharding(mesh, spec))

    layers = {group: put(group == "blocks")(stack) for group, stack in slots.trunk.layers.items()}
    placed = put(False)(slots.replace(trunk=None, cache=None))
    trunk = slots.trunk.replace(layers=layers, lengths=put(False)(slots.trunk.lengths))
    return placed.replace(trunk=trunk, cache=put(True)(slots.cache))
