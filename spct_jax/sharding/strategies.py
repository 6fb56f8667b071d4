"""Strategies: which mesh axes the logical axes map to. All other logical axes are not split."""

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
