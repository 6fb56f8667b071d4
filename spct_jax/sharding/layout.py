"""Which devices hold what. The only file that knows mesh axes.

A mesh has three axes: `data` (copies of the parameters; slices of a multi-slice pod), `fsdp` (parameters and batch are split)
and `tensor` (heads, feed-forward and vocabulary are split). A strategy is a table from the logical axes of
`spct_jax.sharding.logical` to them. An axis of an array that the devices do not divide is left whole, and so is one whose mesh
axes an earlier axis of the same array has taken.
"""

import dataclasses
import importlib.util
import math
import os
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spct_jax import distributed, memory
from spct_jax.errors import InputError
from spct_jax.sharding import logical
from spct_jax.sharding.config import MeshConfig
from spct_jax.sharding.strategies import TABLES

AXES = ("data", "fsdp", "tensor")
WAITED = "/spct_jax/compile/waited"
"""JAX's monitoring hears under this name how long a call waited for a program that another thread compiles."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A strategy on a mesh: hashable, a static argument of every program."""

    mesh: Mesh
    table: str

    @property
    def batch_shards(self) -> int:
        """How many parts the rows, B, are split into."""
        return math.prod(self.mesh.shape[axis] for axis in TABLES[self.table]["batch"])

    def resolve(self, shape: tuple[int, ...], logical: tuple[str | None, ...]) -> NamedSharding:
        """Where an array of this shape with these logical axes is; axes behind the last name are whole."""
        table, taken, spec = TABLES[self.table], set(), []
        for size, name in zip(shape, logical, strict=False):
            axes = tuple(a for a in table.get(name, ()) if self.mesh.shape[a] > 1 and a not in taken)
            if size % math.prod(self.mesh.shape[a] for a in axes):
                axes = ()
            taken.update(axes)
            spec.append(axes or None)
        while spec and spec[-1] is None:
            spec.pop()
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def sharding(self, *logical: str | None) -> NamedSharding:
        """Where any array with these logical axes is whose sizes the devices divide."""
        return self.resolve((0,) * len(logical), logical)

    @property
    def whole(self) -> NamedSharding:
        """A copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def params(self, tree: Any) -> Any:
        """Shardings of a tree of parameters, abstract or concrete; the large ones are known by their names."""
        axes = logical.parameter_axes
        return jax.tree_util.tree_map_with_path(lambda path, x: self.resolve(x.shape, axes(path, x.ndim)), tree)

    def state(self, state: Any) -> Any:
        """Shardings of a `TrainState`: what the optimiser keeps of a parameter in its shape follows the parameter."""
        params = self.params(state.params)
        known = {path: leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)}
        placed = dict(jax.tree_util.tree_leaves_with_path(params))

        def follow(path, leaf):
            for start in range(len(path)):
                if known.get(path[start:]) == leaf.shape:
                    return placed[path[start:]]
            return self.whole

        return state.replace(params=params, opt_state=jax.tree_util.tree_map_with_path(follow, state.opt_state))

    def batch(self, tree: Any) -> Any:
        """Shardings of a tree of arrays of rows, trunks and caches among them."""
        axes = logical.row_axes
        return jax.tree_util.tree_map_with_path(lambda path, x: self.resolve(x.shape, axes(path)), tree)

    def split(self, tree: Any) -> Any:
        """Puts arrays of rows, B first, on the devices; of rows that are not local (`local_rows`) the content does not matter.

        Raises:
          InputError: the devices do not divide B.
        """
        for leaf in jax.tree.leaves(tree):
            self.check_rows(leaf.shape[0], "a batch")
        return distributed.put(tree, self.batch(tree))

    def local_rows(self, rows: int) -> list[int]:
        """Which of B rows are on devices of this process, in order; others may hold some of them too."""
        parts = self.sharding("batch").addressable_devices_indices_map((rows,)).values()
        return sorted({row for (part,) in parts for row in range(rows)[part]})

    def check_rows(self, rows: int, what: str) -> None:
        """Raises InputError, naming `what`, where B rows cannot be split evenly."""
        if rows % self.batch_shards:
            raise InputError(f"{what} of {rows} cannot be split over {self.batch_shards} devices; choose a multiple")

    def constraints(self):
        """A context in which a program is traced: `partition.constrain` then splits by this layout."""
        return logical.constraints(self.resolve)


def bytes_per_device(tree: Any, shardings: Any) -> int:
    """What a device holds of a tree of arrays, abstract or concrete."""
    sizes = jax.tree.map(lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize, tree, shardings)
    return sum(jax.tree.leaves(sizes))


def use_devices(config: MeshConfig) -> None:
    """Splits the host's CPU into devices where the CPU is what JAX runs on; must come before JAX is first used."""
    # A device that waits for another one for 40 s ends the process; on a busy machine that is no reason to.
    patience = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
    os.environ["XLA_FLAGS"] = f"{patience} {os.environ.get('XLA_FLAGS', '')}"
    jax.config.update("jax_num_cpu_devices", config.cpu_devices)
    if os.environ.get("JAX_PLATFORMS") == "cpu" or not any(map(importlib.util.find_spec, ("libtpu", "jax_plugins"))):
        memory.keep()


def make_layout(config: MeshConfig | None = None, devices: Any = None) -> Layout:
    """The layout of parameters and updates.

    Args:
      config: the mesh; None for the default one, data parallel.
      devices: None for all that JAX sees; those of a TPU topology description lay out a slice that is not there.

    Raises:
      InputError: the devices cannot be arranged as `config` says.
    """
    config, devices = config or MeshConfig(), list(distributed.devices() if devices is None else devices)
    count, tensor, slices = len(devices), config.tensor, config.slices
    if count % (tensor * slices):
        raise InputError(f"{count} devices cannot be arranged in slices={slices} and tensor={tensor}")
    inner = count // (slices * tensor)
    shape = (count, 1, 1) if config.strategy == "data" else (slices, inner, tensor)
    if slices > 1 and devices[0].platform == "tpu":
        arranged = mesh_utils.create_hybrid_device_mesh(
            (1, inner, tensor), (slices, 1, 1), devices, allow_split_physical_axes=True
        )
    else:
        arranged = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Layout(Mesh(np.asarray(arranged).reshape(shape), AXES), config.strategy)


def rollout_layout(layout: Layout, config: MeshConfig) -> Layout:
    """The layout of sampling, on the same mesh."""
    return layout if config.rollout == "same" else dataclasses.replace(layout, table=config.rollout)


class Program:
    """A jitted function with explicit shardings of arguments and results, compiled once per layout and shapes.

    Arguments are positional, everything static is a keyword. Without a layout the function runs where its arguments are.
    """

    def __init__(
        self,
        function: Callable,
        takes: tuple[str, ...],
        gives: Callable[..., Any],
        donate: tuple[int, ...] = (),
    ):
        """Wraps `function`.

        Args:
          function: `function(*arguments, **static)`, pure.
          takes: for each argument what it is: `params`, `state`, `batch` (methods of `Layout`) or `whole`.
          gives: called with the layout, the arguments and the static values by name; returns the shardings of the results,
            or of whole branches of their tree.
          donate: arguments whose memory the results may take.
        """
        self._function, self._takes, self._gives, self._donate = function, takes, gives, donate
        self._jitted: dict[Any, Callable] = {}
        self._ahead: dict[Any, futures.Future] = {}
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, layout: Layout | None = None, **static: Any) -> Any:
        """Calls the function."""
        key = self._key(args, layout, static)
        ahead = self._ahead.get(key)
        if ahead is None or ahead.cancelled():
            return self._program(key, args, layout, static)(*args)
        return _waited_for(ahead)(*args)

    def compile_ahead(self, pool: futures.Executor, *args: Any, layout: Layout, **static: Any) -> bool:
        """Has it compiled in `pool` for arguments of these shapes and dtypes, unless it is already; whether it was not.

        A call with such arguments waits for it.
        """
        key = self._key(args, layout, static)
        if key in self._jitted:
            return False
        program = self._program(key, args, layout, static)
        self._ahead[key] = pool.submit(lambda: program.lower(*args).compile())
        return True

    def lower(self, *args: Any, layout: Layout | None = None, **static: Any) -> jax.stages.Lowered:
        """Lowers it for arguments of which shapes and dtypes are enough."""
        return self._program(self._key(args, layout, static), args, layout, static).lower(*args)

    def _key(self, args: tuple, layout: Layout | None, static: dict[str, Any]) -> Any:
        leaves, structure = jax.tree.flatten(args)
        shapes = None if layout is None else (structure, *((np.shape(x), getattr(x, "dtype", None)) for x in leaves))
        return layout, tuple(sorted(static.items())), shapes

    def _program(self, key: Any, args: tuple, layout: Layout | None, static: dict[str, Any]) -> Callable:
        if key not in self._jitted:
            self._jitted[key] = self._make(args, layout, static)
        return self._jitted[key]

    def _make(self, args: tuple, layout: Layout | None, static: dict[str, Any]) -> Callable:
        if layout is None:
            return jax.jit(lambda *args: self._function(*args, **static), donate_argnums=self._donate)
        given = tuple(
            jax.tree.map(lambda _: layout.whole, arg) if role == "whole" else getattr(layout, role)(arg)
            for role, arg in zip(self._takes, args, strict=True)
        )

        def traced(*args):
            with layout.constraints():
                return self._function(*args, **static)

        traced.__name__ = self._function.__name__
        results = self._gives(layout, *args, **static)
        return jax.jit(traced, in_shardings=given, out_shardings=results, donate_argnums=self._donate)


def _waited_for(ahead: futures.Future) -> Callable:
    """A program that is compiled in another thread; the time that this one waits for it counts as its compiling."""
    if not ahead.done():
        start = time.perf_counter()
        futures.wait([ahead])
        jax.monitoring.record_event_duration_secs(WAITED, time.perf_counter() - start)
    return ahead.result()
