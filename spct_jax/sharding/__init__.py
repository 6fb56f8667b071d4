"""Which devices hold what: logical axes, strategies that map them to mesh axes, and layouts."""

from spct_jax.sharding.devices import AXES, make_mesh, use_devices
from spct_jax.sharding.layout import Layout, bytes_of_arrays, bytes_per_device, layout_of, make_layout, rollout_layout
from spct_jax.sharding.resharding import cast_params, make_cast
from spct_jax.sharding.strategies import TABLES

__all__ = [
    "AXES",
    "TABLES",
    "Layout",
    "bytes_of_arrays",
    "bytes_per_device",
    "cast_params",
    "layout_of",
    "make_cast",
    "make_layout",
    "make_mesh",
    "rollout_layout",
    "use_devices",
]
