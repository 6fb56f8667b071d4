"""Arrays that are found once, by all processes together, and kept in a file until what they were found in changes."""

import io
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeVar

import numpy as np

from spct_jax.errors import InputError
from spct_jax.runtime import distributed
from spct_jax.storage import files, local_copies
from spct_jax.storage.paths import Path, is_remote

T = TypeVar("T")


def stamp_of(paths: Sequence[str | os.PathLike]) -> str:
    """Sizes and times of change of files; InputError naming one that cannot be read."""
    stamps = []
    for path in paths:
        try:
            with open(local_copies.of_file(path), "rb") as file:
                found = os.fstat(file.fileno())
        except OSError as error:
            raise InputError(f"{path}: cannot read the file ({error.strerror})") from None
        stamps.append(f"{found.st_size} {found.st_mtime_ns}")
    return ", ".join(stamps)


def together(work: Callable[[], T]) -> list[T]:
    """What `work` gives on every process; the first InputError of any is raised on all."""
    try:
        value, error = work(), None
    except InputError as raised:
        value, error = None, raised
    parts = distributed.gather((value, error))
    for _, error in parts:
        if error is not None:
            raise error
    return [value for value, _ in parts]


def arrays(
    path: Path,
    stamp: str,
    find: Callable[[], dict[str, np.ndarray]],
    check: Callable[[dict[str, np.ndarray]], bool],
    *,
    shared: bool = True,
) -> dict[str, np.ndarray]:
    """The arrays kept at `path` if they have this stamp and pass the check; otherwise those of `find`, which are kept there.

    If the file is missing or damaged for one process, all of them call `find`; unless `shared`, this process is alone with it.
    """
    found = _load(path)
    stale = found is None or str(found["stamp"]) != stamp or not check(found)
    if distributed.any_process(stale) if shared else stale:
        found = find()
        content = io.BytesIO()
        np.savez(content, stamp=np.array(stamp), **found)
        files.write(path, content.getvalue())
    return found


def _seekable(file: BinaryIO, path: Path) -> BinaryIO:
    """The same file; of an object all of its bytes, instead of a request for every array."""
    return io.BytesIO(file.read()) if is_remote(path) else file


def _load(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file that `arrays` wrote; None where there is none that can be read."""
    try:
        with path.open("rb") as file, np.load(_seekable(file, path), allow_pickle=False) as stored:
            return dict(stored) if "stamp" in stored else None
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error):
        return None
