"""Reads the newest step of a model directory whose bytes are those that were saved; `steps` writes them."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from spct_jax import errors
from spct_jax.checkpoints import array_digests, leaves, orbax_arrays, steps
from spct_jax.checkpoints.orbax_arrays import DamagedError
from spct_jax.errors import InputError
from spct_jax.runtime import distributed
from spct_jax.storage import digests, files
from spct_jax.storage.paths import Path

Cast = Callable[[Any], Any]
"""From a tree of arrays to the same in other dtypes."""


class Stored(NamedTuple):
    """What was read of a step."""

    step: int
    trees: dict[str, Any]
    """Of `steps.ARRAYS`, those that were asked for."""
    progress: dict[str, float]
    digests: dict[str, Any]
    """As they were saved: per tree and leaf."""
    damaged: tuple[int, ...] = ()
    """Newer steps that were passed over, and older ones that a manager cannot list."""


def read_newest(directory: str | os.PathLike, targets: Mapping[str, Any], cast: Cast | None = None) -> Stored | None:
    """The newest step that is intact, None where there are no steps; damaged ones are named on standard error.

    All processes must call this.

    Args:
      directory: the model directory.
      targets: of `steps.ARRAYS`, trees of ShapeDtypeStruct with shardings: how they are to be read.
      cast: from a tree as it is stored to one of other dtypes; an array is read in that dtype where there is a digest of it.
        None: as stored.

    Raises:
      InputError: an array is missing, unexpected, or of another shape, or no step is intact.
    """
    damaged: list[int] = []
    newest: Stored | None = None
    for step in steps.listed(directory):
        found, damage = None, ""
        files.check_regular(steps.root(directory) / str(step))
        try:
            _check_listable(directory, step)
            if newest is None:
                found = _read(directory, step, targets, cast)
        except DamagedError as error:
            damage = str(error)
        # Digests are computed by all processes together, so all must have read their shards.
        if distributed.any_process(bool(damage)):
            damage = damage or "says another process"
        elif newest is None:
            damage = _differing(found)
        if damage:
            damaged.append(step)
            print(f"{directory}: checkpoint {step} is damaged ({damage})", file=sys.stderr)
        elif newest is None:
            newest = found
    if newest is None and damaged:
        raise InputError(f"{directory}: no checkpoint is intact; to train this stage from its start, remove the directory")
    return newest and newest._replace(damaged=tuple(damaged))


def _read_digests(directory: str | os.PathLike, step: int) -> dict[str, Any]:
    """The digests that a step was saved with.

    Raises:
      DamagedError: they are missing or altered.
    """
    saved = _read_json(steps.root(directory) / str(step) / "digests" / "metadata")
    own = saved.pop("digests", None)
    if own != digests.of_json(saved):
        raise DamagedError("its digests are not those that were saved")
    return saved


def _check_tree(found: Mapping[str, Any], expected: Any, where: str | os.PathLike) -> None:
    """Compares the shapes of stored leaves, by name, with an expected tree; names the first differing one.

    Raises:
      InputError: a leaf is missing, unexpected, or of another shape.
    """
    stored = {name: tuple(leaf["shape"]) for name, leaf in found.items()}
    wanted = {name: tuple(leaf.shape) for name, leaf in leaves.named_leaves(expected)}
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            one, other = (shapes.get(name, "absent") for shapes in (stored, wanted))
            raise InputError(f"{where}: parameter {name} is {one} in the checkpoint, {other} by the config")


def _check_listable(directory: str | os.PathLike, step: int) -> None:
    """Raises DamagedError where Orbax cannot list a step by its own description, without which no manager can be made."""
    try:
        ocp.path.step.standard_name_format().find_step(steps.root(directory), step).commit_timestamp  # noqa: B018
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # of what a changed byte makes of it, Orbax raises whatever comes
        if errors.is_unreachable(error):
            raise
        raise DamagedError(f"its description cannot be read: {orbax_arrays.first_line(error)}") from error


def _read(directory: str | os.PathLike, step: int, targets: Mapping[str, Any], cast: Cast | None) -> Stored:
    """A step, of which only the digest of `progress` has been compared."""
    path = steps.root(directory) / str(step)
    saved = _read_digests(directory, step)
    progress = _read_json(path / "progress" / "metadata")
    if digests.of_json(progress) != saved.get("progress"):
        raise DamagedError("its progress is not what was saved")
    arrays = {}
    for name, target in targets.items():
        _check_tree(saved.get(name, {}), target, directory)
        arrays[name] = orbax_arrays.read_tree(path / name, _to_read(target, saved[name], cast))
    return Stored(step, arrays, progress, saved)


def _to_read(target: Any, saved: Mapping[str, Any], cast: Cast | None) -> Any:
    """`target` with the dtypes to read."""

    def record(path) -> Mapping[str, Any]:
        return saved[leaves.leaf_name(path)]

    stored = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.ShapeDtypeStruct(leaf.shape, jax.numpy.dtype(record(path)["dtype"])), target
    )
    wanted = stored if cast is None else jax.eval_shape(cast, stored)

    def one(path, leaf, stored, wanted):
        dtype = wanted.dtype if str(wanted.dtype) in record(path) else stored.dtype
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)

    return jax.tree_util.tree_map_with_path(one, target, stored, wanted)


def _differing(found: Stored) -> str:
    """What is wrong with arrays that were read, empty where nothing is."""
    for name, tree in found.trees.items():
        if (leaf := array_digests.differing(found.digests[name], tree)) is not None:
            return f"array {name}/{leaf} is not what was saved"
    return ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedError(f"{path.parent.name} is missing") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DamagedError(f"{path.parent.name} is not JSON")
    return value
