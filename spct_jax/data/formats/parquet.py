"""Parquet. A row of it cannot be read without its whole row group, so it is first rewritten as an Arrow file next to the index.

An Arrow file is mapped into memory: any row of it is read by itself, and no more than one row group is held at a time.
"""

import bisect
import contextlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from spct_jax.data import kept
from spct_jax.data.rows import Joined, Rows, short_names
from spct_jax.errors import InputError, one_line
from spct_jax.runtime import distributed
from spct_jax.storage import files, local_copies
from spct_jax.storage.paths import Path, is_remote


def open_files(paths: Sequence[str], directory: Path, name: str, *, shared: bool) -> Rows:
    """The rows of the files; `directory/name.NUMBER.arrow` keeps their content, see `formats.open_rows`.

    Raises:
        InputError: a file is missing, is no parquet file, or is cut short.
    """
    stamps = [kept.stamp_of([path]) for path in paths]
    place = local_copies.beside(directory)
    unpacked = [place / f"{name}.{i}.arrow" for i in range(len(paths))]
    alone = not shared or is_remote(directory)  # what is unpacked is read by this process only

    def find() -> dict[str, np.ndarray]:
        def unpack() -> None:
            for path, target in zip(paths, unpacked, strict=True):
                if alone or distributed.is_first():
                    _unpack(path, target)

        kept.together(unpack) if shared else unpack()
        return {"sizes": np.array([path.stat().st_size for path in unpacked], np.int64)}

    def check(found: dict[str, np.ndarray]) -> bool:
        return all(map(pathlib.Path.exists, unpacked)) and found["sizes"].tolist() == [p.stat().st_size for p in unpacked]

    kept.arrays(directory / f"{name}.unpacked", ", ".join(stamps), find, check, shared=shared)
    parts = [Parquet(*arguments) for arguments in zip(paths, unpacked, stamps, strict=True)]
    return parts[0] if len(parts) == 1 else Joined(parts, short_names(paths))


class Parquet(Rows):
    """Rows of an Arrow file that holds what a parquet file does."""

    def __init__(self, path: str, unpacked: pathlib.Path, stamp: str):
        """Of the parquet file and what it was unpacked into."""
        import pyarrow  # here and below: 30 MB of memory, which only those who need it pay

        self._path, self.stamp = path, stamp
        self._file = pyarrow.ipc.open_file(pyarrow.memory_map(str(unpacked)))
        self._batches = [self._file.get_batch(i) for i in range(self._file.num_record_batches)]
        self._ends = [*itertools.accumulate(batch.num_rows for batch in self._batches)]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect.bisect_right(self._ends, index)
        within = index - (self._ends[part - 1] if part else 0)
        try:
            return self._batches[part].slice(within, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            raise InputError(f"{self.where(index)}: not UTF-8 (byte {error.start + 1})") from None

    def where(self, index: int) -> str:
        """'file: row number', from 1."""
        return f"{self._path}: row {index + 1}"

    def default_id(self, index: int) -> str:
        """The number of the row, from 1."""
        return str(index + 1)

    def check_columns(self, needed: Iterable[str]) -> None:
        """InputError naming the file and the first column that it does not have."""
        names = self._file.schema.names
        if missing := [column for column in needed if column not in names]:
            raise InputError(f"{self._path}: no column {missing[0]!r} (it has {', '.join(names)})")


def _unpack(path: str, target: pathlib.Path) -> None:
    import pyarrow.parquet

    with _naming(path), pyarrow.parquet.ParquetFile(local_copies.of_file(path)) as source, files.replacing(target) as file:
        with pyarrow.ipc.new_file(file, source.schema_arrow) as sink:
            for group in range(source.num_row_groups):
                for batch in source.read_row_group(group).to_batches():
                    sink.write_batch(batch)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a parquet file that can be read ({one_line(error)})") from None
