"""Arrays that Orbax wrote, read so that damage to their bytes is told from faults of this program or this machine."""

import json
import re
import traceback
from typing import Any

import orbax.checkpoint as ocp

from spct_jax import errors
from spct_jax.checkpoints import leaves
from spct_jax.storage.paths import Path

_STATUS = re.compile(r"\b(DATA_LOSS|NOT_FOUND|OUT_OF_RANGE|INVALID_ARGUMENT|FAILED_PRECONDITION|INTERNAL|UNKNOWN)\b")
"""How TensorStore, which reads the arrays, begins what it says of their bytes."""


class DamagedError(Exception):
    """Bytes of a checkpoint are missing, or are not those that were saved."""


def read_tree(path: Path, target: Any) -> Any:
    """The arrays of an item, whose digests have not been compared yet.

    Not by the manager, in which processes wait for each other: one that cannot read its shards must be able to say so.
    """
    handler = ocp.StandardCheckpointHandler()
    try:
        check_claims(handler.metadata(path), target)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # of what a changed byte makes of the metadata, Orbax raises whatever comes
        if errors.is_unreachable(error):
            raise
        raise DamagedError(first_line(error) or "its metadata cannot be read") from error
    try:
        return handler.restore(path, args=ocp.args.StandardRestore(target))
    except Exception as error:
        # What fails for one shard of an array is wrapped in a bare Exception.
        cause = error.__cause__ if type(error) is Exception and error.__cause__ is not None else error
        if not _is_of_bytes(cause):
            raise
        raise DamagedError(first_line(cause)) from error


def check_claims(metadata: Any, target: Any = None) -> None:
    """Compares what Orbax says of arrays on disk with what is to be read, before any memory is taken for them.

    Args:
      metadata: the tree of an item's metadata.
      target: the arrays to be read, a tree of the same structure; None for any.

    Raises:
      ValueError: an array has another shape, or pieces on disk that are larger than itself.
    """
    shapes = {name: tuple(leaf.shape) for name, leaf in leaves.named_leaves(target)}
    for name, leaf in leaves.named_leaves(getattr(metadata, "tree", metadata)):
        shape, chunk = tuple(leaf.shape), leaf.storage.chunk_shape if leaf.storage else None
        if target is not None and shapes.get(name) != shape:
            raise ValueError(f"array {name} is {shape}")
        if any(piece > max(length, 1) for piece, length in zip(chunk or (), shape, strict=False)):
            raise ValueError(f"array {name} of {shape} is said to lie in pieces of {chunk}")


def _is_of_bytes(error: BaseException) -> bool:
    """Whether an error in reading arrays comes from what is on the disk; others are faults of ours or of this machine."""
    if isinstance(error, OSError):
        return not isinstance(error, PermissionError)
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        return True
    if isinstance(error, (LookupError, AttributeError, TypeError)):
        # Orbax, asked for what was saved, stumbles over a description of another form.
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        return frame.f_globals.get("__name__", "").partition(".")[0] == "orbax"
    return isinstance(error, ValueError) and bool(_STATUS.search(str(error)))


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return str(error).partition("\n")[0]
