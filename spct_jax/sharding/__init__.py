"""Which devices hold what: logical axes, the strategies that map them to mesh axes, and layouts."""

from spct_jax.sharding.layout import AXES, WAITED, Layout, Program, bytes_per_device, make_layout, rollout_layout, use_devices
from spct_jax.sharding.strategies import TABLES

__all__ = [
    "AXES",
    "TABLES",
    "WAITED",
    "Layout",
    "Program",
    "bytes_per_device",
    "make_layout",
    "rollout_layout",
    "use_devices",
]
