"""Files and directories that are complete or absent, and JSON that names the file when it is wrong.

Paths are pathlib's, not those of etils.epath: that library takes a local /gs/x, /s3/x or /hf/x for a path in a bucket, cannot
`stat` if the user's number has no name, also expands wildcards in the directory's own name, and removes a directory that holds
only `x~` as empty.
"""

import contextlib
import errno
import io
import json
import os
import pathlib
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from spct_jax import distributed, errors
from spct_jax.errors import InputError

LARGEST = 16 << 20
"""Largest size of a description and the like, in bytes; parsed, no file of this size takes more than a gigabyte of memory."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


def local_path(text: str | os.PathLike, flag: str) -> pathlib.Path:
    """A path that a user gave, made absolute, so that it stays the same file whatever the current directory becomes.

    Args:
      text: the path.
      flag: what it was given as, such as `--workdir`, for the message.

    Raises:
      InputError: it is empty, or a URL such as `gs://bucket/x`, which would become a local directory `gs:`.
    """
    text = os.fspath(text)
    if not text or "\0" in text:
        raise InputError(f"{flag}={text!r}: not a path")
    if _URL.match(text):
        raise InputError(f"{flag}={text}: a URL, but only local paths can be read and written")
    try:
        return pathlib.Path(text).absolute()
    except OSError as error:
        raise InputError(f"{flag}={text}: the current directory is gone ({error.strerror})") from None


def read_bytes(path: str | os.PathLike, largest: int = LARGEST) -> bytes:
    """The content of a regular file of bounded size: not of a pipe, which would hang, nor of a device, which may not end.

    Raises:
      InputError: it cannot be read, is no regular file, or has more than `largest` bytes.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{path}: not a regular file")
        with open(path, "rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > largest:
        raise InputError(f"{path}: longer than {largest:,} bytes")
    return content


def contained(directory: str | os.PathLike, name: str) -> pathlib.Path:
    """The path of a file that a model directory names or holds.

    Links into the `blobs` next to a snapshot are allowed: that is how Hugging Face's cache is laid out.

    Raises:
      InputError: the name is no plain file name, or a link leads out of the directory.
    """
    path, inside = pathlib.Path(directory) / name, pathlib.Path(os.path.realpath(directory))
    if name in ("", ".", "..") or "\0" in name or pathlib.PurePath(name).name != name:
        raise InputError(f"{directory}: names the file {name!r}, which is not in it")
    real = pathlib.Path(os.path.realpath(path))
    allowed = [inside] + [inside.parent.parent / "blobs"] * (inside.parent.name == "snapshots")
    if real.parent not in allowed:
        raise InputError(f"{path}: a link to {real}, which is not in {directory}")
    return path


def check_regular(directory: str | os.PathLike) -> None:
    """Raises InputError where anything below a directory is neither a directory nor a regular file: a link or a pipe, say."""
    for folder, folders, names in os.walk(directory):
        for name in (*folders, *names):
            mode = os.lstat(os.path.join(folder, name)).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise InputError(f"{os.path.join(folder, name)}: not a regular file")


def make_directory(path: str | os.PathLike) -> None:
    """Makes a directory, and those above it, if it does not exist yet; InputError if it cannot be made."""
    try:
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror})") from None


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file, on the first process only: it holds the old content or all of the new, even after a loss of power."""
    if not distributed.is_first():
        return
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write, which replaces `path` when the block ends without an error and its content is on the disk."""
    scratch = pathlib.Path(f"{path}.partial")
    with errors.naming(path), open(scratch, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    directory = os.open(scratch.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # otherwise, after a loss of power, the name may still be that of the old content
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # the file system cannot do this with a directory
            raise
    finally:
        os.close(directory)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes indented JSON, all of it or nothing."""
    write(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """A JSON object; InputError, naming the file and line, if the file holds none."""
    content = read_bytes(path)
    try:
        value = json.loads(content.decode())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not text") from None
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, or thousands of nested brackets
        raise InputError(f"{path}: not JSON that can be read ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object")
    return value


def write_array(path: str | os.PathLike, array: np.ndarray) -> None:
    """Writes NumPy's .npy, all of it or nothing."""
    content = io.BytesIO()
    np.save(content, array)
    write(path, content.getvalue())


def read_array(path: str | os.PathLike) -> np.ndarray:
    """What `write_array` wrote; InputError, naming the file, if it is no array."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not an array ({error})") from None


def check_new(directory: str | os.PathLike) -> pathlib.Path:
    """The absolute path of a directory that can be made.

    Raises:
      InputError: it exists and is not empty, or lies below a file.
    """
    target = pathlib.Path(directory).absolute()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError(f"{directory}: exists already; choose another directory")
    except OSError as error:
        raise InputError(f"{directory}: cannot be written ({error.strerror})") from None
    above = next(path for path in target.parents if path.exists())
    if not above.is_dir():
        raise InputError(f"{directory}: cannot be written, since {above} is a file")
    return target


@contextlib.contextmanager
def new_directory(directory: str | os.PathLike, size: int = 0) -> Iterator[pathlib.Path]:
    """A scratch directory next to `directory`, renamed to it when the block ends without an error; otherwise nothing is left.

    All files in it get the permissions that the process gives to new ones, whatever their writers chose.

    Args:
      directory: the final name.
      size: the most bytes that will be written.

    Raises:
      InputError: `directory` exists and is not empty, cannot be written, or there is no room for `size` bytes.
    """
    target = check_new(directory)
    scratch = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")  # used by nobody else, so it may be removed
    try:
        scratch.mkdir(parents=True)
        try:
            if (free := shutil.disk_usage(scratch).free) < size:
                raise InputError(f"{directory}: cannot be written, since {size:,} bytes are needed and {free:,} are free")
            yield scratch
            _permit(scratch)
            if target.exists():
                target.rmdir()
            scratch.replace(target)
        except BaseException:
            shutil.rmtree(scratch)
            raise
    except InputError:
        raise
    except Exception as error:
        if refused := errors.describe(error):
            raise InputError(f"{directory}: cannot be written ({refused[0]})") from None
        raise


def _permit(directory: pathlib.Path) -> None:
    """Gives all files in a new directory the permissions of that directory, which follow from the umask, but no execution."""
    for folder, _, names in os.walk(directory):
        for name in names:
            os.chmod(os.path.join(folder, name), stat.S_IMODE(directory.stat().st_mode) & 0o666)
