"""Orbax checkpoints of a model directory by step: saved with digests, listed, and read back only when those agree.

DIR/checkpoints/<step>/{params,opt_state,progress,digests}
"""

import contextlib
import datetime
import json
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from spct_jax import digests, distributed, errors, files
from spct_jax.checkpoints import array_digests
from spct_jax.errors import InputError

ARRAYS = ("params", "opt_state")

Cast = Callable[[Any], Any]
"""From a tree of arrays to the same in other dtypes."""

_STATUS = re.compile(r"\b(DATA_LOSS|NOT_FOUND|OUT_OF_RANGE|INVALID_ARGUMENT|FAILED_PRECONDITION|INTERNAL|UNKNOWN)\b")
"""How the library that reads arrays begins what it says of bytes."""


class DamagedError(Exception):
    """Bytes of a checkpoint are missing, or are not those that were saved."""


class Stored(NamedTuple):
    """What was read of a step."""

    step: int
    trees: dict[str, Any]
    """Of `ARRAYS`, those that were asked for."""
    progress: dict[str, float]
    digests: dict[str, Any]
    """As they were saved: per tree and leaf."""
    damaged: tuple[int, ...]
    """Newer steps that were passed over, and older ones that a manager cannot list."""


@contextlib.contextmanager
def manager(directory: str | os.PathLike, keep: int = 1, keep_hours: float = 0.0) -> Iterator[ocp.CheckpointManager]:
    """The Orbax manager that writes steps of a model directory; saves are atomic, a torn one is never listed.

    A save copies the state and goes on beside the devices' work; all have ended when the block has ended well. The newest
    `keep` stay, and one in `keep_hours`, where that is not 0.

    Raises:
      InputError: a step cannot be written; what was written before is intact.
    """
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        keep_time_interval=datetime.timedelta(hours=keep_hours) if keep_hours else None,
        enable_async_checkpointing=True,
        create=True,
    )
    handlers = {name: ocp.StandardCheckpointHandler() for name in ARRAYS}
    handlers |= {name: ocp.JsonCheckpointHandler() for name in ("progress", "digests")}
    made = ocp.CheckpointManager(_root(directory), options=options, item_handlers=handlers)
    try:
        yield made
        with _writing(made):
            made.close()
    except BaseException:
        with contextlib.suppress(Exception):  # else what a save failed of would take the place of what ended the block
            made.close()
        raise


@contextlib.contextmanager
def _writing(manager: ocp.CheckpointManager) -> Iterator[None]:
    """What the system refuses to write is an InputError that names the directory."""
    try:
        yield
    except Exception as error:
        line, status = errors.describe(error) or ("", 0)
        if status != errors.WRONG:
            raise
        raise InputError(f"{manager.directory}: a checkpoint cannot be written ({line})") from error


def save(
    manager: ocp.CheckpointManager, step: int, params: Any, opt_state: Any = None, progress: Mapping[str, float] | None = None
) -> None:
    """Begins to write a step, with the digest of every array."""
    trees = {"params": params} if opt_state is None else {"params": params, "opt_state": opt_state}
    progress = dict(progress or {})
    saved = {name: array_digests.of_tree(tree) for name, tree in trees.items()} | {"progress": digests.of_json(progress)}
    with _writing(manager):
        manager.save(
            step,
            args=ocp.args.Composite(
                progress=ocp.args.JsonSave(progress),
                digests=ocp.args.JsonSave(saved | {"digests": digests.of_json(saved)}),
                **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
            ),
        )


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits until what has been saved is on the disk; errors as of `manager`."""
    with _writing(manager):
        manager.wait_until_finished()


def listed(directory: str | os.PathLike) -> list[int]:
    """The steps of a model directory, the newest first; one that is not finished has a longer name."""
    root = _root(directory)
    found = [int(path.name) for path in root.iterdir() if path.name.isdigit()] if root.is_dir() else []
    return distributed.gather(sorted(found, reverse=True))[0]


def read_newest(directory: str | os.PathLike, targets: Mapping[str, Any], cast: Cast | None = None) -> Stored | None:
    """The newest step that is intact, None where there are no steps; damaged ones are said on standard error.

    All processes must call this.

    Args:
      directory: the model directory.
      targets: of `ARRAYS`, trees of ShapeDtypeStruct with shardings: how they are to be read.
      cast: from a tree as it is stored to one of other dtypes; an array is read in that dtype where there is a digest of it.
        None: as stored.

    Raises:
      InputError: an array is missing, unexpected, or of another shape, or no step is intact.
    """
    damaged: list[int] = []
    newest = None
    for step in listed(directory):
        found, damage = None, ""
        files.check_regular(_root(directory) / str(step))
        try:
            _check_described(directory, step)
            if newest is None:
                found = _read(_root(directory) / str(step), targets, cast, directory)
        except DamagedError as error:
            damage = str(error)
        # Digests are computed by all processes together, so all must have read their parts.
        if distributed.any_process(bool(damage)):
            damage = damage or "says another process"
        elif newest is None:
            damage = _differing(found)
        if damage:
            damaged.append(step)
            print(f"{directory}: checkpoint {step} is damaged ({damage})", file=sys.stderr)
        elif newest is None:
            newest = Stored(step, *found, ())
    if newest is None and damaged:
        raise InputError(f"{directory}: no checkpoint is intact; to train this stage from its start, remove the directory")
    return newest and newest._replace(damaged=tuple(damaged))


def read_digests(directory: str | os.PathLike, step: int) -> dict[str, Any]:
    """The digests that a step was saved with.

    Raises:
      DamagedError: they are missing or altered.
    """
    saved = _read_json(_root(directory) / str(step) / "digests" / "metadata")
    own = saved.pop("digests", None)
    if own != digests.of_json(saved):
        raise DamagedError("its digests are not those that were saved")
    return saved


def check_tree(found: Mapping[str, Any], expected: Any, where: str | os.PathLike) -> None:
    """Compares the shapes of stored leaves, by name, with an expected tree; names the first differing one.

    Raises:
      InputError: a leaf is missing, unexpected, or of another shape.
    """
    stored = {name: tuple(leaf["shape"]) for name, leaf in found.items()}
    wanted = {name: tuple(leaf.shape) for name, leaf in array_digests.named_leaves(expected)}
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            one, other = (shapes.get(name, "absent") for shapes in (stored, wanted))
            raise InputError(f"{where}: parameter {name} is {one} in the checkpoint, {other} by the config")


def _root(directory: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(directory).absolute() / "checkpoints"


def _check_described(directory: str | os.PathLike, step: int) -> None:
    """Raises DamagedError where Orbax cannot list a step by its own description, without which no manager can be made."""
    try:
        ocp.path.step.standard_name_format().find_step(_root(directory), step).commit_timestamp  # noqa: B018
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # as of `_read_tree`
        raise DamagedError(f"its description cannot be read: {_line(error)}") from error


def _read(
    path: pathlib.Path, targets: Mapping[str, Any], cast: Cast | None, where: str | os.PathLike
) -> tuple[dict[str, Any], dict[str, float], dict[str, Any]]:
    """(trees, progress, digests) of a step; only the digest of `progress` has been compared."""
    saved = read_digests(path.parents[1], int(path.name))
    progress = _read_json(path / "progress" / "metadata")
    if digests.of_json(progress) != saved.get("progress"):
        raise DamagedError("its progress is not what was saved")
    trees = {}
    for name, target in targets.items():
        check_tree(saved.get(name, {}), target, where)
        trees[name] = _read_tree(path / name, _to_read(target, saved[name], cast))
    return trees, progress, saved


def _to_read(target: Any, saved: Mapping[str, Any], cast: Cast | None) -> Any:
    """`target` with the dtypes to read."""

    def record(path) -> Mapping[str, Any]:
        return saved[jax.tree_util.keystr(path, simple=True, separator="/")]

    stored = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.ShapeDtypeStruct(leaf.shape, jax.numpy.dtype(record(path)["dtype"])), target
    )
    wanted = stored if cast is None else jax.eval_shape(cast, stored)

    def one(path, leaf, stored, wanted):
        dtype = wanted.dtype if str(wanted.dtype) in record(path) else stored.dtype
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)

    return jax.tree_util.tree_map_with_path(one, target, stored, wanted)


def _read_tree(path: pathlib.Path, target: Any) -> Any:
    """The arrays of an item, whose digests have not been compared yet.

    Not by the manager, in which processes wait for each other: one that cannot read its part must be able to say so.
    """
    handler = ocp.StandardCheckpointHandler()
    try:
        check_claims(handler.metadata(path), target)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # of what a changed byte makes of the metadata, Orbax raises whatever comes
        raise DamagedError(_line(error) or "its metadata cannot be read") from error
    try:
        return handler.restore(path, args=ocp.args.StandardRestore(target))
    except Exception as error:
        # What fails for one shard of an array is wrapped in a bare Exception.
        cause = error.__cause__ if type(error) is Exception and error.__cause__ is not None else error
        if not _is_of_bytes(cause):
            raise
        raise DamagedError(_line(cause)) from error


def check_claims(metadata: Any, target: Any = None) -> None:
    """Compares what Orbax says of arrays on disk with what is to be read, before any memory is taken for them.

    Args:
      metadata: the tree of an item's metadata.
      target: the arrays to be read, a tree of the same structure; None for any.

    Raises:
      ValueError: an array has another shape, or pieces on disk that are larger than itself.
    """
    shapes = {name: tuple(leaf.shape) for name, leaf in array_digests.named_leaves(target)}
    for name, leaf in array_digests.named_leaves(getattr(metadata, "tree", metadata)):
        shape, chunk = tuple(leaf.shape), leaf.storage.chunk_shape if leaf.storage else None
        if target is not None and shapes.get(name) != shape:
            raise ValueError(f"array {name} is {shape}")
        if any(piece > max(length, 1) for piece, length in zip(chunk or (), shape, strict=False)):
            raise ValueError(f"array {name} of {shape} is said to lie in pieces of {chunk}")


def _is_of_bytes(error: BaseException) -> bool:
    """Whether an error in reading arrays is of what is on the disk; others are faults of ours or of this machine."""
    if isinstance(error, OSError):
        return not isinstance(error, PermissionError)
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        return True
    if isinstance(error, (LookupError, AttributeError, TypeError)):
        # Orbax, asked for what was saved, stumbles over a description of another form.
        return "orbax" in traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, ValueError) and bool(_STATUS.search(str(error)))


def _differing(found: tuple[dict[str, Any], dict[str, float], dict[str, Any]]) -> str:
    """What is wrong with arrays that were read, empty where nothing is."""
    for name, tree in found[0].items():
        if (leaf := array_digests.differing(found[2][name], tree)) is not None:
            return f"array {name}/{leaf} is not what was saved"
    return ""


def _read_json(path: pathlib.Path) -> dict[str, Any]:
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


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
