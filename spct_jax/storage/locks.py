"""Locks, so that two processes do not write the same file or directory."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import BinaryIO

from spct_jax.errors import InputError
from spct_jax.runtime import distributed
from spct_jax.storage import files, paths
from spct_jax.storage.paths import Path


def lock(file: BinaryIO, message: str) -> None:
    """Keeps an open file for this process until it is closed; InputError with this message where another has it.

    A file system without locks goes without.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(message) from None
    except OSError:
        pass


@contextlib.contextmanager
def locked_directory(directory: str | os.PathLike) -> Iterator[None]:
    """Keeps a directory, which is made, for one run: of several processes the first holds the lock, for all of them.

    Raises:
      InputError: on all of them, where another run has it.
    """
    path, message = paths.of(directory) / ".lock", f"{directory}: another run is under way in it"
    with contextlib.ExitStack() as stack:
        error = ""
        if distributed.is_first():
            try:
                files.make_directory(directory)
                if paths.is_remote(path):
                    stack.enter_context(leased(path, message))
                else:
                    lock(stack.enter_context(_opened(path)), message)
            except InputError as refused:
                error = str(refused)
        if error := distributed.gather(error)[0]:
            raise InputError(error)
        yield


@contextlib.contextmanager
def leased(path: Path, message: str) -> Iterator[None]:
    """Keeps an object of a bucket as a lock; InputError with this message where another run has it. See `lease`."""
    from spct_jax.storage import lease

    try:
        taken = lease.Lease(path, message)
    except FileNotFoundError:
        raise InputError(f"gs://{path.parts[2]}: no such bucket") from None
    except PermissionError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    with taken:
        yield


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "ab")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
