"""Objects of a bucket on this machine's disk, where a reader needs a file: one to map into memory, or to seek in at random.

A copy lies under the object's own name, `~/.cache/spct_jax/gs/BUCKET/NAME`, and is made once; it is used again until the object
is another one.
"""

import contextlib
import os
import pathlib
import secrets
import shutil

import tqdm

from spct_jax.errors import InputError
from spct_jax.runtime import distributed
from spct_jax.storage import paths


def cache() -> pathlib.Path:
    """Where copies lie: below XDG_CACHE_HOME, or else ~/.cache."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "spct_jax", "gs")


def of_file(path: str | os.PathLike) -> pathlib.Path:
    """A local file with the content of this one: itself, or a copy of an object.

    Raises:
      InputError: there is no such object, or no room for it.
    """
    if not paths.is_remote(path):
        return pathlib.Path(path)
    from spct_jax.storage import gcs

    system, name, target = gcs.register(), os.fspath(path), _place(path)
    try:
        found = system.info(name)
    except OSError as error:
        raise InputError(f"{path}: cannot read the file ({error.strerror})") from None
    if found["type"] != "file":
        raise InputError(f"{path}: not a file")
    # A time that is the same on every machine, so that what is kept about the file by its time holds on all of them.
    written = 1000 * int(found["generation"])
    with contextlib.suppress(OSError):
        have = target.stat()
        if have.st_mtime_ns == written and have.st_size == found["size"]:
            return target
    scratch = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(target.parent).free) < found["size"]:
            raise InputError(f"{path}: has {found['size']:,} bytes, and in {cache()} {free:,} are free")
        system.get_file(name, str(scratch))
        os.utime(scratch, ns=(written, written))
        scratch.replace(target)
    except OSError as error:
        raise InputError(f"{path}: cannot be copied to {target} ({error.strerror})") from None
    finally:
        scratch.unlink(missing_ok=True)
    return target


def of_directory(path: str | os.PathLike) -> pathlib.Path:
    """A local directory with the files of this one: itself, or copies of all objects below a name, or of the one of that name.

    Raises:
      InputError: there are none, or no room for them.
    """
    if not paths.is_remote(path):
        return pathlib.Path(path)
    from spct_jax.storage import gcs

    found = gcs.register().find(os.fspath(path))
    if not found:
        raise InputError(f"{path}: no such file or directory")
    for name in tqdm.tqdm(found, "copying", unit="file", delay=3):
        of_file(paths.SCHEME + name)
    return _place(path)


def beside(directory: str | os.PathLike) -> pathlib.Path:
    """Where files go that are unpacked into a directory to be mapped: itself, or a place of this process's own on this disk."""
    if not paths.is_remote(directory):
        return pathlib.Path(directory)
    place = _place(directory) / f"process-{distributed.process_index_and_count()[0]}"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _place(path: str | os.PathLike) -> pathlib.Path:
    return cache() / os.fspath(path).removeprefix(paths.SCHEME)
