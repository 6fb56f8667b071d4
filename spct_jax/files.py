"""Files and directories that are whole or absent, and JSON that names the file when it is wrong."""

import contextlib
import io
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from spct_jax import distributed
from spct_jax.errors import InputError

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


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file so that it is either the old one or the whole new one; of several processes only the first does."""
    if not distributed.is_first():
        return
    scratch = pathlib.Path(f"{path}.partial")
    scratch.write_bytes(content.encode() if isinstance(content, str) else content)
    scratch.replace(path)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes indented JSON, whole or not at all."""
    write(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """A JSON object; InputError, naming the file and line, when it is none."""
    try:
        value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not text") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object")
    return value


def write_array(path: str | os.PathLike, array: np.ndarray) -> None:
    """Writes NumPy's .npy, whole or not at all."""
    content = io.BytesIO()
    np.save(content, array)
    write(path, content.getvalue())


def read_array(path: str | os.PathLike) -> np.ndarray:
    """What `write_array` wrote; InputError, naming the file, when it is none."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not an array ({error})") from None


@contextlib.contextmanager
def new_directory(directory: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A scratch directory beside `directory` that takes its name when the block ends well; else nothing is there.

    Raises:
      InputError: `directory` exists and is not empty.
    """
    target = pathlib.Path(directory).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{directory}: exists already; choose another directory")
    scratch = target.with_name(target.name + ".partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    except BaseException:
        shutil.rmtree(scratch)
        raise
    if target.exists():
        target.rmdir()
    scratch.replace(target)


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file from its start; what a killed writer left of a last one is cut off when it is come to."""
    whole = 0
    file.seek(0)
    for text in file:
        if not text.endswith(b"\n"):
            file.truncate(whole)
            return
        yield text
        whole += len(text)


class Appended:
    """JSON lines that grow; what a killed writer left of a last line is cut off when they are opened again.

    Of several processes the first one writes.

    Attributes:
      lines: whole lines that were there when it was opened.
    """

    def __init__(self, path: str | os.PathLike):
        """Opens or creates the file."""
        first = distributed.is_first()
        self._file = open(path if first else os.devnull, "a+b")
        self.lines = distributed.agree(sum(1 for _ in whole_lines(self._file)) if first else 0)

    def write(self, record: Any) -> None:
        """Appends one line."""
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
