"""Files and directories that are complete or absent, here or in a bucket, and JSON that names the file when it is wrong.

A bucket has no directories: a name exists there as long as something lies below it. Whatever is written there is written whole.
"""

import contextlib
import errno
import fnmatch
import io
import json
import os
import pathlib
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from spct_jax import errors
from spct_jax.errors import InputError
from spct_jax.runtime import distributed
from spct_jax.storage import paths
from spct_jax.storage.paths import Path

LARGEST = 16 << 20
"""Largest size of a description and the like, in bytes; parsed, no file of this size takes more than a gigabyte of memory."""
_LAST = ("model.json", "config.json", "dataset_info.json")
"""What a reader looks for first, so that it is the last to be put into a bucket."""


def read_bytes(path: str | os.PathLike, largest: int = LARGEST) -> bytes:
    """The content of a regular file of bounded size: not of a pipe, which would hang, nor of a device, which may not end.

    Raises:
      InputError: it cannot be read, is no regular file, or has more than `largest` bytes.
    """
    path = paths.of(path)
    try:
        if not paths.is_remote(path) and not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{path}: not a regular file")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > largest:
        raise InputError(f"{path}: longer than {largest:,} bytes")
    return content


def contained(directory: str | os.PathLike, name: str) -> Path:
    """The path of a file that a model directory names or holds.

    Links into the `blobs` next to a snapshot are allowed: that is how Hugging Face's cache is laid out.

    Raises:
      InputError: the name is no plain file name, or a link leads out of the directory.
    """
    if name in ("", ".", "..") or "\0" in name or pathlib.PurePath(name).name != name:
        raise InputError(f"{directory}: names the file {name!r}, which is not in it")
    path = paths.of(directory) / name
    if paths.is_remote(path):
        return path
    inside = pathlib.Path(os.path.realpath(directory))
    real = pathlib.Path(os.path.realpath(path))
    allowed = [inside] + [inside.parent.parent / "blobs"] * (inside.parent.name == "snapshots")
    if real.parent not in allowed:
        raise InputError(f"{path}: a link to {real}, which is not in {directory}")
    return path


def check_regular(directory: str | os.PathLike) -> None:
    """Raises InputError where anything below a directory is neither a directory nor a regular file: a link or a pipe, say."""
    if paths.is_remote(directory):
        return
    for folder, folders, names in os.walk(directory):
        for name in (*folders, *names):
            mode = os.lstat(os.path.join(folder, name)).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise InputError(f"{os.path.join(folder, name)}: not a regular file")


def make_directory(path: str | os.PathLike) -> None:
    """Makes a directory, and those above it, if it does not exist yet; InputError if it cannot be made. A bucket needs none."""
    if paths.is_remote(path):
        return
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
    """A file to write, which replaces `path` when the block ends without an error and its content is on the disk.

    After an error nothing is left of it; the system's own errors name `path`.
    """
    if paths.is_remote(path):
        with tempfile.NamedTemporaryFile(prefix="spct_jax_") as file:
            yield file
            file.flush()
            _put(file.name, path)
        return
    scratch = pathlib.Path(f"{path}.partial")
    with errors.naming(path, scratch):
        file = open(scratch, "wb")
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                scratch.unlink()
            raise
    directory = os.open(scratch.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # otherwise, after a loss of power, the name may still be that of the old content
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # the file system cannot do this with a directory
            raise
    finally:
        os.close(directory)


def create(path: Path, content: bytes) -> None:
    """Writes an object of a bucket that nobody has written yet.

    Raises:
      InputError: somebody has, and something else.
    """
    try:
        _remote().put_if(str(path), content, 0)
    except FileExistsError:
        if path.read_bytes() != content:  # it may have been this very request, whose answer was lost
            raise InputError(f"{path}: another run has written it") from None


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
        with paths.of(path).open("rb") as file:
            return np.load(io.BytesIO(file.read()) if paths.is_remote(path) else file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not an array ({error})") from None


def matching(directory: str | os.PathLike, pattern: str) -> list[Path]:
    """What lies in a directory under a name with `*`, `?` or `[..]`, in the order of the names; nothing where there is none."""
    folder = paths.of(directory)
    return sorted(path for path in folder.iterdir() if fnmatch.fnmatchcase(path.name, pattern)) if folder.is_dir() else []


def expand(pattern: str) -> list[str]:
    """The objects of a bucket that a name with `*`, `**`, `?` or `[..]` stands for, in order."""
    found = _remote().glob(pattern, detail=True)
    return [paths.SCHEME + name for name in sorted(found) if found[name]["type"] == "file"]


def real_name(path: str | os.PathLike) -> str:
    """The name of a file without links in it, wherever it is given."""
    return os.fspath(path) if paths.is_remote(path) else os.path.realpath(path)


def check_unused(target: str | os.PathLike, used: Iterable[str | os.PathLike], flag: str) -> None:
    """InputError, naming the flag that says where, if a file to be written is, or lies in, anything that the command uses.

    It is one, too, if it is a directory on this machine: what it is for may take long, and would be lost.
    """
    if not paths.is_remote(target) and os.path.isdir(target):
        raise InputError(f"{flag}={target}: is a directory")
    for path in used:
        if (real := real_name(target)) == real_name(path) or real.startswith(f"{real_name(path)}/"):
            raise InputError(f"{flag}={target}: would be written over {path}, which this command uses; choose another file")


def is_there(path: Path) -> bool:
    """Whether there is anything under a name, be it a link to nothing."""
    return path.exists() if paths.is_remote(path) else os.path.lexists(path)


def size(path: str | os.PathLike) -> int:
    """Bytes of a file."""
    found = paths.of(path).stat()
    return found.length if paths.is_remote(path) else found.st_size


def move(source: Path, target: Path) -> None:
    """Gives a file or directory another name; in a bucket, where that is a copy, nothing is removed before all is copied."""
    if not paths.is_remote(source):
        make_directory(target.parent)
        source.replace(target)
        return
    system = _remote()
    for name in system.find(str(source)):
        system.cp_file(name, str(target) + name.removeprefix(system._strip_protocol(str(source))))
    system.rm(str(source), recursive=True)


def check_new(directory: str | os.PathLike) -> Path:
    """The absolute path of a directory that can be made.

    Raises:
      InputError: it exists and is not empty, or lies below a file.
    """
    target = paths.absolute(paths.of(directory))
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError(f"{directory}: exists already; choose another directory")
    except OSError as error:
        raise InputError(f"{directory}: cannot be written ({error.strerror})") from None
    if paths.is_remote(target):
        return target
    above = next(path for path in target.parents if path.exists())
    if not above.is_dir():
        raise InputError(f"{directory}: cannot be written, since {above} is a file")
    return target


@contextlib.contextmanager
def new_directory(directory: str | os.PathLike, size: int = 0) -> Iterator[pathlib.Path]:
    """A scratch directory, which becomes `directory` when the block ends without an error; otherwise nothing is left.

    It lies next to `directory` and is renamed to it. For one in a bucket it is a temporary directory here, whose files are put
    there one by one, what readers look for last; if that is cut short, what lies there is no model and no dataset.
    All files in it get the permissions that the process gives to new ones, whatever their writers chose.

    Args:
      directory: the final name.
      size: the most bytes that will be written.

    Raises:
      InputError: `directory` exists and is not empty, cannot be written, or there is no room for `size` bytes.
    """
    target = check_new(directory)
    near = pathlib.Path(tempfile.gettempdir(), target.name) if paths.is_remote(target) else target
    scratch = near.with_name(f"{near.name}.{secrets.token_hex(4)}.partial")  # used by nobody else, so it may be removed
    try:
        scratch.mkdir(parents=True)
        try:
            if (free := shutil.disk_usage(scratch).free) < size:
                raise InputError(f"{directory}: cannot be written, since {size:,} bytes are needed and {free:,} are free")
            yield scratch
            _settle(scratch, target)
        except BaseException:
            shutil.rmtree(scratch)
            raise
    except InputError:
        raise
    except Exception as error:
        if errors.is_unreachable(error):
            raise
        if refused := errors.describe(error):
            raise InputError(f"{directory}: cannot be written ({refused[0]})") from None
        raise


def _settle(scratch: pathlib.Path, target: Path) -> None:
    """Makes a scratch directory the one that it stands for."""
    if paths.is_remote(target):
        put_directory(scratch, target)
        shutil.rmtree(scratch)
        return
    _permit(scratch)
    if target.exists():
        target.rmdir()
    scratch.replace(target)


def put_directory(source: str | os.PathLike, target: Path) -> None:
    """Makes all files of a local directory objects of a bucket, what readers look for last."""
    found = [path for path in pathlib.Path(source).rglob("*") if path.is_file()]
    for path in sorted(found, key=lambda path: (path.name in _LAST, path)):
        _put(path, target / path.relative_to(source))


def _put(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Makes a local file an object."""
    _remote().put_file(os.fspath(source), os.fspath(target))


def _remote():
    from spct_jax.storage import gcs

    return gcs.register()


def _permit(directory: pathlib.Path) -> None:
    """Gives all files in a new directory the permissions of that directory, which follow from the umask, but no execution."""
    for folder, _, names in os.walk(directory):
        for name in names:
            os.chmod(os.path.join(folder, name), stat.S_IMODE(directory.stat().st_mode) & 0o666)
