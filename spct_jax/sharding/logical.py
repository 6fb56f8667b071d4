"""Logical axes: the names of the axes along which arrays may be split, without a mesh.

A `Layout` says which mesh axes they map to, and `Layout.constraints` switches `constrain` on while a function is traced;
elsewhere `constrain` does nothing. Constraints belong outside of vmaps, where every axis of an array is visible.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

PARAM_LOGICAL_AXES: dict[str, tuple[str | None, ...]] = {
    "input_embedding": ("vocab", "embed"),
    "output_embedding": ("vocab", "embed"),
    "q": ("embed", "heads", None),
    "k": ("embed", "kv_heads", None),
    "v": ("embed", "kv_heads", None),
    "out": ("heads", None, "embed"),
    "gate": ("embed", "ffw"),
    "up": ("embed", "ffw"),
    "down": ("ffw", "embed"),
}
"""Logical axes of the large parameters by leaf name, after the axis of stacked layers; all others are replicated."""

Resolve = Callable[[tuple[int, ...], tuple[str | None, ...]], jax.sharding.Sharding]

_RESOLVE: contextvars.ContextVar[Resolve | None] = contextvars.ContextVar("resolve", default=None)


@contextlib.contextmanager
def constraints(resolve: Resolve | None):
    """Lets `constrain` use `resolve(shape, logical axes)` inside the block; None: it leaves arrays as they are."""
    token = _RESOLVE.set(resolve)
    try:
        yield
    finally:
        _RESOLVE.reset(token)


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """x, split along the named axes; axes after the last name are not split."""
    resolve = _RESOLVE.get()
    return x if resolve is None else lax.with_sharding_constraint(x, resolve(x.shape, logical_axes))


def device() -> jax.Device:
    """The first device that the function being traced will run on: of the layout's, else of JAX's default platform."""
    resolve = _RESOLVE.get()
    return jax.devices()[0] if resolve is None else resolve((), ()).mesh.devices.flat[0]


def platform() -> str:
    """The platform of `device`, as JAX names it."""
    return device().platform


def is_split(size: int, axis: str) -> bool:
    """Whether an axis of this name and size is split over several devices."""
    resolve = _RESOLVE.get()
    return resolve is not None and any(resolve((size,), (axis,)).spec)


def shard_map(function: Callable, logical_axes: tuple[tuple[str | None, ...], ...], *trees: Any) -> Any:
    """`jax.shard_map` in logical axes: `function(*shards)` on every device; the result is split as the first tree is.

    For what the compiler cannot split. All arrays of a tree have the same axes; without a layout the function is just called.
    """
    resolve = _RESOLVE.get()
    if resolve is None:
        return function(*trees)
    where = [
        jax.tree.map(lambda x, axes=axes: resolve(x.shape, axes), tree) for tree, axes in zip(trees, logical_axes, strict=True)
    ]
    specs, mesh = jax.tree.map(lambda w: w.spec, tuple(where)), jax.tree.leaves(where)[0].mesh
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=False)(*trees)


def param_logical_axes(path: tuple, ndim: int) -> tuple[str | None, ...]:
    """Logical axes of a parameter with `ndim` axes at a path of its tree."""
    axes = PARAM_LOGICAL_AXES.get(param_name(path), ())
    return (None,) * (ndim - len(axes)) + axes if len(axes) <= ndim else ()


def param_name(path: tuple) -> str:
    """The name of the parameter at a path of its tree, or that the array there is a part of."""
    key = path[-1 - is_part(path)] if path else ""
    return str(getattr(key, "key", key))


def is_part(path: tuple) -> bool:
    """Whether the array at a path of a tree is a part of a quantised one, see `models.quantized`: its numbers or its scales.

    A part has the axes of the whole, and keeps its dtype where others are cast.
    """
    return len(path) > 1 and getattr(path[-1], "name", "") in ("qvalue", "scale")


def constrain_params(tree: Any) -> Any:
    """A tree like the parameters (of gradients, say), split as they are."""
    return jax.tree_util.tree_map_with_path(lambda path, x: constrain(x, *param_logical_axes(path, x.ndim)), tree)


def batch_logical_axes(path: tuple, ndim: int) -> tuple[str | None, ...]:
    """Logical axes of an array of a batch with `ndim` axes at a path of its tree: B first, or after stacked layers."""
    names = [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]
    if "cache" in names:
        return (None, "batch", None, "kv_heads")
    if "layers" in names:
        return (None,) * (ndim - 4) + ("batch", "kv_heads")  # [.. B K S H]
    return ("batch",)


def constrain_batch(tree: Any) -> Any:
    """A tree of arrays of a batch, split along B (and kv heads)."""
    return jax.tree_util.tree_map_with_path(lambda path, x: constrain(x, *batch_logical_axes(path, x.ndim)), tree)


def gather(tree: Any, dtype: Any) -> Any:
    """Parameters as the arithmetic uses them: the large ones cast to `dtype`, then all-gathered along D.

    Because they are cast before they are gathered, half the bytes are sent if `dtype` is bfloat16. On the way back, gradients
    are summed over the batch and split again.
    """

    def one(path, x):
        axes = param_logical_axes(path, x.ndim)
        # Constrained right after the cast: otherwise every device would gather first and cast all of it.
        return _gather(constrain(x.astype(dtype_of(path, x, dtype)), *axes), axes) if any(axes) else x

    return jax.tree_util.tree_map_with_path(one, tree)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
    return constrain(x, *(None if axis == "embed" else axis for axis in axes))


def _gather_forward(x, axes):
    return _gather(x, axes), None


def _gather_backward(axes, _, gradient):
    # By default, the transpose of a constraint is the same constraint: every device would sum all of the gradient.
    return (constrain(gradient, *axes),)


_gather.defvjp(_gather_forward, _gather_backward)


def shard_map_batch(function: Callable, replicated: Any, *batch: jax.Array) -> Any:
    """`jax.shard_map` of `function(replicated, *batch)` over B, the first axis of each array of the batch and of the results.

    Inside a loop over chunks, the gradient of `replicated` would be summed over the devices once per chunk; here it is summed
    once, after the loop. Without a layout the function is just called.
    """
    resolve = _RESOLVE.get()
    where = None if resolve is None else resolve(batch[0].shape, ("batch",))
    if where is None or not where.spec:
        return function(replicated, *batch)
    split = PartitionSpec(where.spec[0])
    axes = {where.spec[0]} if isinstance(where.spec[0], str) else set(where.spec[0])

    def inside(shape, logical_axes):
        # B is split already, and the other axes are constrained without naming the mesh.
        return resolve(shape, tuple(None if axis == "batch" else axis for axis in logical_axes)).spec

    def shard(replicated, *batch):
        with constraints(inside):
            return function(replicated, *batch)

    return jax.shard_map(
        shard,
        mesh=where.mesh,
        in_specs=(PartitionSpec(), *(split for _ in batch)),
        out_specs=split,
        axis_names=axes,
        check_vma=False,
    )(replicated, *batch)


def cast(tree: Any, dtype: Any) -> Any:
    """Parameters with the large ones in `dtype`, for programs that read them many times."""
    return jax.tree_util.tree_map_with_path(lambda path, x: x.astype(dtype_of(path, x, dtype)), tree)


def dtype_of(path: tuple, x: Any, dtype: Any) -> jnp.dtype:
    """The dtype that a parameter has where the large ones are cast to `dtype`."""
    return jnp.dtype(dtype) if is_large(path, x.ndim) and not is_part(path) else x.dtype


def is_large(path: tuple, ndim: int) -> bool:
    """Whether a parameter at a path of its tree is one of the large ones, which can be split and are cast."""
    return any(param_logical_axes(path, ndim))
