"""Where arrays may be split, in the model's own words: logical axes, without a mesh.

`spct_jax.sharding` says which mesh axes they stand for and switches `constrain` on while a program is traced; anywhere else
it does nothing. Constraints stand outside of vmaps, where every axis of an array is in sight.
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

PARAMETER_AXES: dict[str, tuple[str | None, ...]] = {
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
"""Logical axes of the large parameters by leaf name, behind the axis of stacked layers; all others are whole everywhere."""

Resolve = Callable[[tuple[int, ...], tuple[str | None, ...]], jax.sharding.Sharding]

_RESOLVE: contextvars.ContextVar[Resolve | None] = contextvars.ContextVar("resolve", default=None)


@contextlib.contextmanager
def constraints(resolve: Resolve):
    """Lets `constrain` use `resolve(shape, logical axes)` inside."""
    token = _RESOLVE.set(resolve)
    try:
        yield
    finally:
        _RESOLVE.reset(token)


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
    """x, split along the named axes; the axes behind the last name are whole."""
    resolve = _RESOLVE.get()
    return x if resolve is None else lax.with_sharding_constraint(x, resolve(x.shape, logical))


def platform() -> str:
    """What the program being traced is for: the kind of the layout's devices, or of those JAX runs on."""
    resolve = _RESOLVE.get()
    return jax.default_backend() if resolve is None else resolve((), ()).mesh.devices.flat[0].platform


def on_each_device(function: Callable, logical: tuple[tuple[str | None, ...], ...], *arrays: jax.Array) -> jax.Array:
    """`function(*arrays)` on every device's part of the arrays, split along the named axes; the result is split as the first.

    For kernels that the compiler cannot split; without a layout the function is just called.
    """
    resolve = _RESOLVE.get()
    if resolve is None:
        return function(*arrays)
    where = [resolve(x.shape, axes) for x, axes in zip(arrays, logical, strict=True)]
    specs = tuple(w.spec for w in where)
    return jax.shard_map(function, mesh=where[0].mesh, in_specs=specs, out_specs=specs[0], check_vma=False)(*arrays)


def parameter_axes(path: tuple, ndim: int) -> tuple[str | None, ...]:
    """Logical axes of a parameter with `ndim` axes at a path of its tree."""
    name = str(getattr(path[-1], "key", path[-1])) if path else ""
    axes = PARAMETER_AXES.get(name, ())
    return (None,) * (ndim - len(axes)) + axes if len(axes) <= ndim else ()


def constrain_params(tree: Any) -> Any:
    """A tree like the parameters (gradients, say), split as they are."""
    return jax.tree_util.tree_map_with_path(lambda path, x: constrain(x, *parameter_axes(path, x.ndim)), tree)


def row_axes(path: tuple) -> tuple[str | None, ...]:
    """Logical axes of an array of rows at a path of its tree: B first, but behind stacked layers in trunks and caches."""
    names = [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]
    if "cache" in names:
        return (None, "batch", None, "kv_heads")
    if "layers" in names:
        return (None, "batch", "kv_heads") if "blocks" in names else ("batch", "kv_heads")
    return ("batch",)


def constrain_rows(tree: Any) -> Any:
    """A tree of arrays of rows, split by them."""
    return jax.tree_util.tree_map_with_path(lambda path, x: constrain(x, *row_axes(path)), tree)


def gather(tree: Any, dtype: Any) -> Any:
    """Parameters as they enter the arithmetic: the large ones in `dtype`, then whole along D.

    Cast before they are gathered, half the bytes travel where `dtype` is bfloat16. Gradients leave split again, summed over
    the batch on the way.
    """

    def one(path, x):
        axes = parameter_axes(path, x.ndim)
        # Held where it was while it is cast, or the cast would be done, too, where all of it is.
        return _gather(constrain(x.astype(dtype), *axes), axes) if any(axes) else x

    return jax.tree_util.tree_map_with_path(one, tree)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
    return constrain(x, *(None if axis == "embed" else axis for axis in axes))


def _gather_forward(x, axes):
    return _gather(x, axes), None


def _gather_backward(axes, _, gradient):
    # The transpose of a constraint is the same constraint: gradients would be summed whole on every device.
    return (constrain(gradient, *axes),)


_gather.defvjp(_gather_forward, _gather_backward)


def over_rows(function: Callable, whole: Any, *rows: jax.Array) -> Any:
    """`function(whole, *rows)`, every device at work on its own rows alone; of arrays with B first, to arrays with B first.

    Inside a loop over parts of the rows, the gradient of `whole` would be summed over the devices once per part; here it is
    summed once, when the loop is over.
    """
    resolve = _RESOLVE.get()
    where = None if resolve is None else resolve(rows[0].shape, ("batch",))
    if where is None or not where.spec:
        return function(whole, *rows)
    split = PartitionSpec(where.spec[0])
    axes = {where.spec[0]} if isinstance(where.spec[0], str) else set(where.spec[0])

    def inside(shape, logical):
        # The rows are split already, and what is left to split is said without the mesh.
        return resolve(shape, tuple(None if axis == "batch" else axis for axis in logical)).spec

    def shard(whole, *rows):
        with constraints(inside):
            return function(whole, *rows)

    return jax.shard_map(
        shard,
        mesh=where.mesh,
        in_specs=(PartitionSpec(), *(split for _ in rows)),
        out_specs=split,
        axis_names=axes,
        check_vma=False,
    )(whole, *rows)


def cast(tree: Any, dtype: Any) -> Any:
    """Parameters with the large ones in `dtype`, once for programs that read them many times."""
    dtype = jnp.dtype(dtype)

    def one(path, x):
        return x.astype(dtype) if any(parameter_axes(path, x.ndim)) else x

    return jax.tree_util.tree_map_with_path(one, tree)
