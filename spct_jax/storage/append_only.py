"""Files that grow line by line and survive a kill of their writer, here or in a bucket.

An object in a bucket cannot be appended to. There a file `x.jsonl` that grows is the object of that name, if there is one yet,
followed by parts below `x.jsonl.parts/`: objects of whole lines, each written once, every half minute or 8 MB. A kill loses no
more than the lines since the last part. When the writer comes to its end, it joins all of them into `x.jsonl`. Part BYTES-LINE
follows an object of so many bytes and begins with that line, counted from 0: once the object has been replaced, by a join or a
run that goes on from an earlier line, older parts belong to it no more.
"""

import contextlib
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol, Self

from spct_jax import errors
from spct_jax.errors import InputError
from spct_jax.runtime import distributed
from spct_jax.storage import files, paths
from spct_jax.storage.paths import Path

PART_SECONDS = 30.0
"""Age of the oldest line, at which a part is written; looked at when there is another line."""
PART_BYTES = 8 << 20
"""Bytes of lines at which a part is written."""
_PART = re.compile(r"(\d+)-(\d+)")


class Lines(Protocol):
    """A file to read from its start, once, and then to write at its end; `with` closes it."""

    def read(self) -> Iterator[bytes]:
        """The complete lines so far; an incomplete last one, left by a killed writer, is cut off when it is reached."""

    def write(self, line: bytes) -> None:
        """Appends a line, with its end."""

    def sync(self) -> None:
        """Puts everything written so far where a loss of power does not reach it."""

    def close(self) -> None:
        """Ends the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


def opened(path: str | os.PathLike) -> Lines:
    """The file, which is made if there is none."""
    return Parts(paths.of(path)) if paths.is_remote(path) else LocalFile(path)


def exists(path: str | os.PathLike) -> bool:
    """Whether there is such a file, be it in parts."""
    return paths.of(path).is_file() or (paths.is_remote(path) and bool(_list(paths.of(path), _size(paths.of(path)))))


def is_empty(path: str | os.PathLike) -> bool:
    """Whether there is no such file, or nothing in it."""
    if not exists(path):
        return True
    with reading(path) as file:
        return not file.read(1)


def rewrite(path: str | os.PathLike, content: bytes) -> None:
    """Replaces all that there is of a file, parts included."""
    files.write(path, content)
    if paths.is_remote(path):
        _remove(paths.of(path), kept=())


def remove(path: str | os.PathLike) -> None:
    """Removes a file, parts included."""
    paths.of(path).unlink(missing_ok=True)
    if paths.is_remote(path):
        _remove(paths.of(path), kept=())


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to be read from its start to its end, with the parts that there are of it."""
    if not paths.is_remote(path):
        with open(path, "rb") as file:
            yield file
        return
    path = paths.of(path)
    if parts := _list(path, _size(path)):
        with tempfile.TemporaryFile(prefix="spct_jax_") as file:
            _copy(path, parts, file)
            file.seek(0)
            yield file
    else:
        with _whole(path) as file:
            yield file


class LocalFile(Lines):
    """Lines of a file on a disk; they reach the operating system one by one, and so survive a kill of this process."""

    def __init__(self, path: str | os.PathLike):
        self._path, self.file = path, open(path, "a+b")

    def read(self) -> Iterator[bytes]:
        """As of `Lines`."""
        end = 0
        self.file.seek(0)
        for text in self.file:
            if not text.endswith(b"\n"):
                self.file.truncate(end)
                return
            yield text
            end += len(text)

    def write(self, line: bytes) -> None:
        """As of `Lines`."""
        with errors.naming(self._path):
            self.file.write(line)
            self.file.flush()

    def sync(self) -> None:
        """As of `Lines`."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """As of `Lines`."""
        with errors.naming(self._path):
            self.file.close()


class Stream(Lines):
    """A pipe or a device: nothing is read back from it."""

    def __init__(self, file: BinaryIO):
        self.file = file

    def read(self) -> Iterator[bytes]:
        """Nothing."""
        return iter(())

    def write(self, line: bytes) -> None:
        """As of `Lines`."""
        self.file.write(line)
        self.file.flush()

    def sync(self) -> None:
        """As of `Lines`."""
        self.file.flush()

    def close(self) -> None:
        """As of `Lines`."""
        self.file.close()


class Parts(Lines):
    """Lines in a bucket; see above. Left by an exception, the file stays in parts, which takes least time."""

    def __init__(self, path: Path):
        self._path, self._size = path, _size(path)
        self._parts = _list(path, self._size)
        _remove(path, kept=self._parts)
        self._count: int | None = None
        self._waiting: list[bytes] = []
        self._bytes, self._since = 0, 0.0

    def read(self) -> Iterator[bytes]:
        """As of `Lines`."""
        self._count = end = 0
        if self._size:
            with _whole(self._path) as file:
                for text in file:
                    if not text.endswith(b"\n"):  # brought here from a disk
                        self._cut(end)
                        return
                    self._count, end = self._count + 1, end + len(text)
                    yield text
        for first, part in self._parts:
            if first != self._count:
                raise InputError(f"{self._path}: line {self._count + 1} is missing; the next part is {part}")
            for text in part.read_bytes().splitlines(keepends=True):
                self._count += 1
                yield text

    def write(self, line: bytes) -> None:
        """As of `Lines`."""
        if self._count is None:
            for _ in self.read():
                pass
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(line)
        self._bytes += len(line)
        if self._bytes >= PART_BYTES or time.monotonic() - self._since >= PART_SECONDS:
            self.sync()

    def sync(self) -> None:
        """As of `Lines`: writes a part of the lines since the last one."""
        if not self._waiting:
            return
        part = _folder(self._path) / f"{self._size:015d}-{self._count:012d}"
        files.create(part, b"".join(self._waiting))
        self._parts.append((self._count, part))
        self._count += len(self._waiting)
        self._waiting, self._bytes = [], 0

    def close(self) -> None:
        """As of `Lines`: joins the parts into one object."""
        self.sync()
        if self._parts:
            with files.replacing(self._path) as file:
                _copy(self._path, self._parts, file)
            _remove(self._path, kept=())
            self._size, self._parts = _size(self._path), []

    def __exit__(self, kind: Any, *exception: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.sync()

    def _cut(self, end: int) -> None:
        with _whole(self._path) as file:
            content = file.read(end)
        rewrite(self._path, content)
        self._size, self._parts = end, []


class Appended:
    """A file of JSON lines that grows; an incomplete last line, left by a killed writer, is cut off when it is opened.

    Of several processes only the first writes.

    Attributes:
      lines: how many complete lines there were when it was opened.
    """

    def __init__(self, path: str | os.PathLike):
        """Opens or creates the file."""
        self._file = opened(path if distributed.is_first() else os.devnull)
        self.lines = distributed.agree(sum(1 for _ in self._file.read()) if distributed.is_first() else 0)

    def write(self, record: Any) -> None:
        """Appends one line."""
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.__exit__(*exception)


def _whole(path: Path) -> BinaryIO:
    """An object to be read from its start to its end; gcsfs's own files have no `readline` of so many bytes."""
    return io.BufferedReader(path.open("rb"), 1 << 20)


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.parts")


def _size(path: Path) -> int:
    return files.size(path) if path.is_file() else 0


def _list(path: Path, size: int) -> list[tuple[int, Path]]:
    """(number of its first line, part) of the parts that follow an object of so many bytes, in order."""
    found = [(_PART.fullmatch(part.name), part) for part in files.matching(_folder(path), "*")]
    return [(int(name[2]), part) for name, part in found if name and int(name[1]) == size]


def _remove(path: Path, kept: Any) -> None:
    """Removes the parts of a file, but for those kept; the last first, so that what is left has no gap."""
    stay = {part for _, part in kept}
    for part in reversed(files.matching(_folder(path), "*")):
        if part not in stay:
            part.unlink(missing_ok=True)


def _copy(path: Path, parts: list[tuple[int, Path]], file: BinaryIO) -> None:
    """Writes all there is of a file into another one."""
    if path.is_file():
        with _whole(path) as whole:
            while block := whole.read(1 << 24):
                file.write(block)
    for _, part in parts:
        file.write(part.read_bytes())
