"""Rows of files, by random access, whatever the format: mappings, not yet the project's records.

`data.formats.open_rows` opens any of them; `data/formats/` holds one file per format. A file that cannot be read as a whole (no
parquet file, a cut gzip file) is an error whenever it is opened, since nobody can tell what was lost; a row that cannot be read
is an error of that row, raised when it is asked for.
"""

import abc
import bisect
import glob
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spct_jax.errors import InputError
from spct_jax.storage import files, paths


class Rows(Sequence[Mapping[str, Any]]):
    """The rows of one or many files; each is read when it is asked for, and not kept.

    `rows[i]` raises InputError, '<where>: <what is wrong>', for a row that cannot be read.

    Attributes:
        stamp: changes when the files do.
    """

    stamp: str

    @abc.abstractmethod
    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """A row; one that is read from JSON is a `dict`, and what it holds are lists, dicts, texts and numbers."""

    @abc.abstractmethod
    def where(self, index: int) -> str:
        """'file:line' or 'file: row number', from 1: put before every message about a row."""

    @abc.abstractmethod
    def default_id(self, index: int) -> str:
        """The id of a record whose row brings none: the line or row number, after the file's name if there are many files."""

    def check_columns(self, needed: Iterable[str]) -> None:
        """InputError naming a file that has no such column, for formats in which a file says which it has; else nothing."""


class Joined(Rows):
    """The rows of several files, one after the other."""

    def __init__(self, parts: Sequence[Rows], names: Sequence[str]):
        """Of the rows of each file, and what to call the files in ids."""
        self._parts, self._names = parts, names
        self._ends = [*itertools.accumulate(map(len, parts))]
        self.stamp = ", ".join(part.stamp for part in parts)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        part, index = self._find(index)
        return self._parts[part][index]

    def where(self, index: int) -> str:
        """That of the file's own rows."""
        part, index = self._find(index)
        return self._parts[part].where(index)

    def default_id(self, index: int) -> str:
        """The file's name and the id within the file."""
        part, index = self._find(index)
        return f"{self._names[part]}:{self._parts[part].default_id(index)}"

    def check_columns(self, needed: Iterable[str]) -> None:
        """Of every file."""
        for part in self._parts:
            part.check_columns(needed)

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect.bisect_right(self._ends, index)
        return part, index - (self._ends[part - 1] if part else 0)


class Renamed(Rows):
    """Rows some of whose fields have other names."""

    def __init__(self, rows: Rows, fields: Mapping[str, str]):
        """Of rows that have under the name `fields[ours]` what is to be called `ours`; where they have not, nothing changes."""
        self._rows, self._fields = rows, dict(fields)
        self.stamp = f"{rows.stamp} {self._fields}"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        row = self._rows[index]
        renamed = {ours: theirs for ours, theirs in self._fields.items() if theirs in row}
        kept = {name: value for name, value in row.items() if name not in renamed.values()}
        return kept | {ours: row[theirs] for ours, theirs in renamed.items()}

    def where(self, index: int) -> str:
        """That of the row."""
        return self._rows.where(index)

    def default_id(self, index: int) -> str:
        """That of the row."""
        return self._rows.default_id(index)

    def check_columns(self, needed: Iterable[str]) -> None:
        """Of the files, by the names that they have."""
        self._rows.check_columns(self._fields.get(name, name) for name in needed)


def expand(pattern: str) -> list[str]:
    """The files that a path with `*`, `?`, `[..]` or `**` stands for, sorted by name.

    Raises:
        InputError: there is none.
    """
    if not glob.has_magic(pattern) or paths.of(pattern).exists():
        return [pattern]
    if paths.is_remote(pattern):
        found = files.expand(pattern)
    else:
        found = sorted(path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path))
    if not found:
        raise InputError(f"{pattern}: no file has a name of this form")
    return found


def short_names(paths: Sequence[str]) -> list[str]:
    """The paths without the directories that are common to all of them."""
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, common or ".") for path in paths]
