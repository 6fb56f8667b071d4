"""JSON Lines, plain or gzipped. The files are looked through once for where their lines begin, each process in its own part.

A gzipped file is unpacked first. What all processes found is merged in the order of the lines, so that it does not depend on
their number.
"""

import array
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from spct_jax.data import kept
from spct_jax.data.jsonl import check_lines, is_blank, is_too_long, next_line, parse_line, read_lines
from spct_jax.data.rows import Rows, short_names
from spct_jax.runtime import distributed
from spct_jax.storage import files, local_copies
from spct_jax.storage.paths import Path, is_remote


def open_files(paths: Sequence[str], directory: Path, name: str, *, shared: bool) -> Rows:
    """The rows of the files; `directory/name.lines` keeps where they begin, see `formats.open_rows`.

    Raises:
        InputError: a file is missing, holds something else than JSON Lines, or its compressed data is damaged or cut short.
    """
    stamp = kept.stamp_of(paths)
    place = local_copies.beside(directory)
    plain = [
        place / f"{name}{f'.{i}' if len(paths) > 1 else ''}.jsonl" if path.endswith(".gz") else local_copies.of_file(path)
        for i, path in enumerate(paths)
    ]
    alone = not shared or is_remote(directory)  # what is unpacked is read by this process only
    find = functools.partial(_find, paths, plain, shared, alone)
    found = kept.arrays(directory / f"{name}.lines", stamp, find, lambda found: _is_whole(found, plain), shared=shared)
    return JsonLines(paths, plain, found, stamp)


class JsonLines(Rows):
    """Lines of files, blank ones left out."""

    def __init__(self, paths: Sequence[str], plain: Sequence[pathlib.Path], found: dict[str, np.ndarray], stamp: str):
        """Of the files, what of them is read, the arrays of `_find`, and a stamp."""
        self._paths, self._plain, self.stamp = paths, plain, stamp
        self._files, self._lines, self._offsets = found["files"], found["lines"], found["offsets"]
        self._names = short_names(paths) if len(paths) > 1 else []
        self._open = functools.lru_cache(maxsize=64)(lambda file: open(plain[file], "rb"))

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file: BinaryIO = self._open(int(self._files[index]))
        file.seek(self._offsets[index])
        return parse_line(next_line(file), self.where(index))

    def where(self, index: int) -> str:
        """'file:line'."""
        return f"{self._paths[self._files[index]]}:{self._lines[index]}"

    def default_id(self, index: int) -> str:
        """The line, after the file's name if there are many files."""
        file = f"{self._names[self._files[index]]}:" if self._names else ""
        return f"{file}{self._lines[index]}"


def _find(paths: Sequence[str], plain: Sequence[pathlib.Path], shared: bool, alone: bool) -> dict[str, np.ndarray]:
    """File, line (from 1) and first byte of every line that is not blank, and the files' sizes. This process scans its part."""
    index, count = distributed.process_index_and_count() if shared else (0, 1)

    def unpack() -> None:
        for path, target in zip(paths, plain, strict=True):
            if path.endswith(".gz") and (alone or index == 0):
                _unpack(path, target)

    together = kept.together if shared else lambda work: [work()]
    together(unpack)
    for path, target in zip(paths, plain, strict=True):
        next(check_lines(read_lines(target), path), None)
    sizes = np.array([path.stat().st_size for path in plain], np.int64)
    total = int(sizes.sum())
    parts = together(lambda: scan(plain, sizes, total * index // count, total * (index + 1) // count))
    before = np.zeros(len(paths), np.int64)  # lines of each file in the parts of earlier processes
    for part in parts:
        part["lines"] += before[part["files"]]
        before += part.pop("counts")
    return {key: np.concatenate([part[key] for part in parts]) for key in ("files", "lines", "offsets")} | {"sizes": sizes}


def scan(plain: Sequence[pathlib.Path], sizes: np.ndarray, begin: int, end: int) -> dict[str, np.ndarray]:
    """The lines that begin in the bytes [begin, end) of all files one after the other.

    Returns: for every line that is not blank, `files`, `lines` (from 1, counted from the first one here) and `offsets` (the
    first byte in its file), Int64 each; `counts`, Int64 per file, the lines here with blank ones.
    """
    found, counts, start = array.array("q"), np.zeros(len(plain), np.int64), 0
    for number, (path, size) in enumerate(zip(plain, sizes.tolist(), strict=True)):
        line = 0
        for line, (offset, blank) in enumerate(_lines_between(path, max(begin - start, 0), min(end - start, size)), 1):
            if not blank:
                found.extend((number, line, offset))
        counts[number], start = line, start + size
    places = np.array(found, np.int64).reshape(-1, 3).T.copy()
    return dict(zip(("files", "lines", "offsets"), places, strict=True)) | {"counts": counts}


def _lines_between(path: pathlib.Path, begin: int, end: int) -> Iterator[tuple[int, bool]]:
    """(first byte, whether it is blank) of the lines of a file that begin in [begin, end)."""
    if begin >= end:
        return
    with open(path, "rb") as file:
        if begin:
            file.seek(begin - 1)
            next_line(file)
        while (offset := file.tell()) < end and (text := next_line(file)):
            yield offset, is_blank(text)


def _unpack(path: str, target: pathlib.Path) -> None:
    with files.replacing(target) as file:
        file.writelines(text + b"\n" if is_too_long(text) else text for _, text in read_lines(path))


def _is_whole(found: dict[str, np.ndarray], plain: Sequence[pathlib.Path]) -> bool:
    """Whether these are the arrays of `_find`, and the files they point into are there."""
    try:
        places = [found[name] for name in ("files", "lines", "offsets")]
        sound = all(x.dtype == np.int64 and x.ndim == 1 and len(x) == len(places[0]) for x in places)
        return bool(sound and found["sizes"].tolist() == [path.stat().st_size for path in plain])
    except (KeyError, OSError):
        return False
