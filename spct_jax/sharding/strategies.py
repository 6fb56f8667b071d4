"""Strategies: which mesh axes the logical axes stand for."""

_ROWS = {"batch": ("data", "fsdp")}


_SPLIT_BY_TENSOR = {axis: ("tensor",) for axis in ("heads", "kv_heads", "heads_per_kv", "ffw", "vocab")}


TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "data": _ROWS,
    "fsdp": _ROWS | {"embed": ("fsdp",)},
    "tensor": _ROWS | _SPLIT_BY_TENSOR,
    "fsdp_tensor": _ROWS | {"embed": ("fsdp",)} | _SPLIT_BY_TENSOR,
    "multislice": _ROWS | {"embed": ("fsdp",)} | _SPLIT_BY_TENSOR,
}
"""Strategy -> logical axis -> mesh axes. In a multi-slice pod only gradients cross slices, which are copies along `data`."""
