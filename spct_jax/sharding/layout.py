"""Layouts: a strategy on a mesh, which says for every array which devices hold what.

An axis of an array is split along as many of its mesh axes, from the first on, as have a number of devices that divides its
size; rows are split along all of theirs or none. It is not split along mesh axes that an earlier axis of the array has taken.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spct_jax.errors import InputError
from spct_jax.runtime import distributed
from spct_jax.sharding import logical
from spct_jax.sharding.config import MeshConfig
from spct_jax.sharding.devices import make_mesh
from spct_jax.sharding.strategies import AXES, TABLES


@dataclasses.dataclass(frozen=True)
class Layout:
    """A strategy on a mesh; hashable."""

    mesh: Mesh
    table: str

    @property
    def batch_shards(self) -> int:
        """How many shards B is split into."""
        return math.prod(self.mesh.shape[axis] for axis in TABLES[self.table]["batch"])

    @property
    def platform(self) -> str:
        """The platform of its devices, `cpu` or `tpu` for instance."""
        return self.mesh.devices.flat[0].platform

    @property
    def is_local(self) -> bool:
        """Whether all of its devices are this process's own, so that it computes without the other processes."""
        return {device.process_index for device in self.mesh.devices.flat} <= {distributed.process_index_and_count()[0]}

    def resolve(self, shape: tuple[int, ...], logical_axes: tuple[str | None, ...]) -> NamedSharding:
        """The sharding of an array of this shape with these logical axes; axes after the last name are not split."""
        table, taken, spec = TABLES[self.table], set(), []
        for size, name in zip(shape, logical_axes, strict=False):
            axes = tuple(a for a in table.get(name, ()) if self.mesh.shape[a] > 1 and a not in taken)
            while axes and size % math.prod(self.mesh.shape[a] for a in axes):
                axes = axes[:-1] if name != "batch" else ()
            taken.update(axes)
            spec.append(axes or None)
        while spec and spec[-1] is None:
            spec.pop()
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def sharding(self, *logical_axes: str | None) -> NamedSharding:
        """The sharding of any array with these logical axes whose sizes can be split evenly over the devices."""
        return self.resolve((0,) * len(logical_axes), logical_axes)

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of an array that every device holds a copy of."""
        return NamedSharding(self.mesh, PartitionSpec())

    def params(self, tree: Any) -> Any:
        """Shardings of a tree of parameters, abstract or concrete; the large ones are recognised by their names."""
        axes = logical.param_logical_axes
        return jax.tree_util.tree_map_with_path(lambda path, x: self.resolve(x.shape, axes(path, x.ndim)), tree)

    def state(self, state: Any) -> Any:
        """Shardings of a `TrainState`: optimiser state of a parameter's shape is split as the parameter is."""
        params = self.params(state.params)
        known = {path: leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)}
        shardings = dict(jax.tree_util.tree_leaves_with_path(params))

        def follow(path, leaf):
            for start in range(len(path)):
                if known.get(path[start:]) == leaf.shape:
                    return shardings[path[start:]]
            return self.replicated

        return state.replace(params=params, opt_state=jax.tree_util.tree_map_with_path(follow, state.opt_state))

    def batch(self, tree: Any) -> Any:
        """Shardings of a tree of arrays with a batch axis B, trunks and caches included."""
        axes = logical.batch_logical_axes
        return jax.tree_util.tree_map_with_path(lambda path, x: self.resolve(x.shape, axes(path, x.ndim)), tree)

    def split(self, tree: Any) -> Any:
        """Puts arrays with B as first axis on the devices; rows that are not local (see `local_rows`) may contain anything.

        Raises:
          InputError: B cannot be split evenly over the devices.
        """
        for leaf in jax.tree.leaves(tree):
            self.check_rows(leaf.shape[0], "a batch")
        return distributed.put(tree, self.batch(tree))

    def local_rows(self, rows: int) -> list[int]:
        """Which of B rows are on devices of this process, in order; other processes may hold some of them too."""
        shards = self.sharding("batch").addressable_devices_indices_map((rows,)).values()
        return sorted({row for (shard,) in shards for row in range(rows)[shard]})

    def check_rows(self, rows: int, what: str) -> None:
        """Raises InputError, naming `what`, where B rows cannot be split evenly."""
        if rows % self.batch_shards:
            raise InputError(f"{what} of {rows} cannot be split over {self.batch_shards} devices; choose a multiple")

    def constraints(self):
        """A context to trace functions in: inside, `logical.constrain` splits arrays by this layout."""
        return logical.constraints(self.resolve)


def bytes_per_device(tree: Any, shardings: Any) -> int:
    """Bytes of a tree of arrays, abstract or concrete, that one device holds."""
    sizes = jax.tree.map(lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize, tree, shardings)
    return sum(jax.tree.leaves(sizes))


def bytes_of_arrays(tree: Any) -> int:
    """Bytes of a tree of arrays that one of their devices holds."""
    return bytes_per_device(tree, jax.tree.map(lambda x: x.sharding, tree))


def make_layout(config: MeshConfig | None = None, devices: Sequence[jax.Device] | None = None) -> Layout:
    """The layout of parameters and updates.

    Args:
      config: the mesh; None for the default one, data parallel.
      devices: None for all that JAX sees; those of a TPU topology description give the layout on a slice that is not there.

    Raises:
      InputError: the devices cannot be arranged as `config` says, or there is no such strategy.
    """
    config = config or MeshConfig()
    if config.strategy not in TABLES:
        raise InputError(f"mesh.strategy: {config.strategy!r} is none of {', '.join(TABLES)}")
    return Layout(make_mesh(config, devices), config.strategy)


def layout_of(params: Any) -> Layout:
    """The layout that parameters are in; if no strategy here gives it, one that replicates them on their devices."""
    first = jax.tree.leaves(params)[0].sharding
    if isinstance(first, NamedSharding) and first.mesh.axis_names == AXES:
        for strategy in TABLES:
            layout = Layout(first.mesh, strategy)
            same = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), params, layout.params(params))
            if jax.tree.all(same):
                return layout
    return make_layout(devices=sorted(first.device_set, key=lambda device: device.id))


def rollout_layout(layout: Layout, config: MeshConfig) -> Layout:
    """The layout of sampling, on the same mesh."""
    return layout if config.rollout == "same" else dataclasses.replace(layout, table=config.rollout)
