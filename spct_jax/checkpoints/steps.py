"""Steps of a model directory, written as Orbax checkpoints with the digest of every array, and listed.

    DIR/checkpoints/<step>/{params,opt_state,progress,digests}

`restore` reads them.
"""

import contextlib
import copy
import datetime
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orbax.checkpoint as ocp

from spct_jax import errors
from spct_jax.checkpoints import array_digests
from spct_jax.errors import InputError
from spct_jax.runtime import distributed
from spct_jax.storage import digests, paths
from spct_jax.storage.paths import Path

ARRAYS = ("params", "opt_state")


def root(directory: str | os.PathLike) -> Path:
    """The folder of a model directory that holds its steps."""
    return paths.absolute(paths.of(directory)) / "checkpoints"


@contextlib.contextmanager
def manager(directory: str | os.PathLike, keep: int = 1, keep_hours: float = 0.0) -> Iterator[ocp.CheckpointManager]:
    """The Orbax manager that writes steps of a model directory; saves are atomic, a torn one is never listed.

    A save copies the state and writes it while the devices go on; all saves have ended when the block ends well. The newest
    `keep` steps stay, and, if `keep_hours` is not 0, one for every so many hours.

    Raises:
      InputError: a step cannot be written; what was written before is intact.
    """
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        # Where directories cannot be made in the background, what waits for them keeps the process from ending for 20 minutes.
        async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        keep_time_interval=datetime.timedelta(hours=keep_hours) if keep_hours else None,
        enable_async_checkpointing=True,
        create=True,
    )
    handlers = {name: ocp.StandardCheckpointHandler() for name in ARRAYS}
    handlers |= {name: ocp.JsonCheckpointHandler() for name in ("progress", "digests")}
    made = ocp.CheckpointManager(root(directory), options=options, item_handlers=handlers)
    try:
        yield made
        with _writing(made):
            made.close()
    except BaseException:
        with contextlib.suppress(Exception):  # else the failure of a save would hide what ended the block
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
    progress = copy.deepcopy(dict(progress or {}))  # it is written while the caller goes on counting
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
    """The steps of a model directory, the newest first; one that is not finished has a longer name or, in a bucket, no mark."""
    folder = root(directory)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = [int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name)]
    if paths.is_remote(folder):
        from spct_jax.storage import gcs  # three seconds, which only those who need it pay

        found = [step for step in found if (folder / str(step) / gcs.COMMITTED).exists()]
    return distributed.gather(sorted(found, reverse=True))[0]
