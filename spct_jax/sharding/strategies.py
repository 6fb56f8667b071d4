"""Strategies: which mesh axes the logical axes map to. All other logical axes are not split."""

import math

from spct_jax.sharding.config import MeshConfig

AXES = ("data", "fsdp", "tensor")
"""Of a mesh, see `spct_jax.sharding.devices`."""

_BATCH = {"batch": ("data", "fsdp")}
_TENSOR = {axis: ("tensor",) for axis in ("heads", "kv_heads", "heads_per_kv", "ffw", "vocab")}
_FSDP = {"embed": ("fsdp",)}

TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "data": _BATCH,
    # Over all devices, those along `tensor` included, which only rollouts use as such.
    "fsdp": {"batch": ("data", "fsdp", "tensor"), "embed": ("fsdp", "tensor")},
    "tensor": _BATCH | _TENSOR,
    "fsdp_tensor": _BATCH | _FSDP | _TENSOR,
    "multislice": _BATCH | _FSDP | _TENSOR,
}
"""Strategy -> logical axis -> mesh axes. Slices of a multi-slice pod are copies along `data`; only gradients cross slices."""


def batch_shards(config: MeshConfig, devices: int) -> int:
    """How many shards a batch is split into on so many devices.

    Raises:
      InputError: they cannot be arranged as the config says.
    """
    sizes = dict(zip(AXES, config.axis_sizes(devices), strict=True))
    return math.prod(sizes[axis] for axis in TABLES[config.strategy]["batch"])
