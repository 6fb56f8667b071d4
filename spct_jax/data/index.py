"""Records that are read when they are asked for: where they lie in a file is found once, by all processes together.

Every process scans its own part of a file. What all of them found is merged in the order of the lines, so that it does not
depend on the number of processes, and kept in the run's directory.
"""

import io
import itertools
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import tqdm
from numpy.typing import DTypeLike

from spct_jax import digests, distributed, files
from spct_jax.data.draws import Shares
from spct_jax.data.jsonl import OnBad, ReadReport, is_blank, is_too_long, next_line, read_lines
from spct_jax.data.sources import Entry, Kind, read_line, settle
from spct_jax.errors import InputError

T = TypeVar("T")


class Records(Sequence[T]):
    """A sequence whose records are made when they are asked for, and not kept.

    Attributes:
        numbers: Int64[N], the numbers of its records.
        stamp: changes when what they are made from does.
        shares: the sources they come from, if it is a mixture of several.
    """

    def __init__(
        self,
        make: Callable[[int], T],
        numbers: Sequence[int] | np.ndarray,
        stamp: str = "",
        where: Callable[[int], str] = lambda _: "",
        shares: Shares | None = None,
    ):
        """Of the records `make(number)`, those with these numbers.

        Args:
            make: gives a record.
            numbers: which ones, in order.
            stamp: see above.
            where: 'file:line' of a record, for messages; nothing where it comes from no file.
            shares: of these records.
        """
        self._make, self.numbers, self.stamp, self._where = make, np.asarray(numbers, np.int64), stamp, where
        self.shares = shares

    @classmethod
    def of(cls, records: Sequence[T], stamp: str = "") -> "Records[T]":
        """Records that are there already."""
        return cls(records.__getitem__, range(len(records)), stamp)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index):
        if isinstance(index, slice | np.ndarray):
            shares = None if self.shares is None else self.shares[index]
            return Records(self._make, self.numbers[index], self.stamp, self._where, shares)
        return self._make(int(self.numbers[index]))

    def where(self, index: int) -> str:
        """'file:line' of a record; nothing where it comes from no file."""
        return self._where(int(self.numbers[index]))

    def __add__(self, other: "Records[T]") -> "Records[T]":
        count = len(self)
        return Records(lambda i: self[i] if i < count else other[i - count], range(count + len(other)))


def index_file(
    path: str | os.PathLike, kind: Kind[T], *, on_bad: OnBad, directory: pathlib.Path, name: str
) -> tuple[Records[T], ReadReport]:
    """The records of a .jsonl or .jsonl.gz file, each read when it is asked for, and a report of all its lines.

    `directory/name.index` holds where they are, and a gzipped file is unpacked next to it; both are made anew when the file has
    changed or they are damaged. All processes must call this.

    Raises:
        InputError: naming file and line; or the file, when it is missing or damaged or gives no record.
    """
    stamp, plain = _stamp(path), directory / f"{name}.jsonl" if str(path).endswith(".gz") else pathlib.Path(path)
    found = _kept(
        directory / f"{name}.index", stamp, lambda: _find(path, plain, kind, on_bad), lambda found: _is_index(found, plain)
    )
    lines, offsets, file = found["lines"], found["offsets"], open(plain, "rb")

    def make(number: int) -> T:
        file.seek(offsets[number])
        record, _, error = read_line(next_line(file), kind, path, int(lines[number]))
        if error:
            raise InputError(error)
        return record

    return Records(make, range(len(lines)), stamp, lambda number: f"{path}:{lines[number]}"), ReadReport(
        **json.loads(str(found["report"]))
    )


def survey(
    records: Records[T],
    measure: Callable[[T], int | tuple[int, ...]],
    kept: pathlib.Path,
    stamp: str,
    *,
    dtype: DTypeLike = np.int32,
    shape: tuple[int, ...] = (),
) -> np.ndarray:
    """`dtype`[N *shape]: a measure of every record; each process measures its part.

    Kept in a file until `stamp` or the records change.

    Raises:
        InputError: `measure` did, on any process.
    """
    index, count = distributed.process_index_and_count()
    part = records[len(records) * index // count : len(records) * (index + 1) // count]

    def measure_part() -> np.ndarray:
        found = np.empty((len(part), *shape), dtype)
        for number, record in enumerate(tqdm.tqdm(part, kept.name, delay=5, unit="record", disable=not distributed.is_first())):
            found[number] = measure(record)
        return found

    def check(found: dict[str, np.ndarray]) -> bool:
        return "found" in found and found["found"].dtype == dtype and found["found"].shape == (len(records), *shape)

    which = digests.of_bytes(records.numbers.tobytes())
    every = _kept(kept, f"{records.stamp} {which} {stamp}", lambda: {"found": np.concatenate(_together(measure_part))}, check)
    return every["found"]


def _find(path: str | os.PathLike, plain: pathlib.Path, kind: Kind, on_bad: OnBad) -> dict[str, np.ndarray]:
    """The arrays of an index: lines and offsets of the records, size of the file, report. This process scans its part."""
    if plain != pathlib.Path(path):
        _together(lambda: _unpack(path, plain) if distributed.is_first() else None)
    (index, count), size = distributed.process_index_and_count(), plain.stat().st_size
    begin, end = size * index // count, size * (index + 1) // count
    before = distributed.gather(sum(1 for _ in lines_between(plain, begin, end)))[:index]
    entries = distributed.gather(scan(path, plain, kind, on_bad, begin, end, sum(before) + 1))
    values, report = settle(path, itertools.chain.from_iterable(entries), kind.name, on_bad)
    lines, offsets = np.array(values, np.int64).T
    return {"lines": lines, "offsets": offsets, "size": np.array(size), "report": np.array(json.dumps(vars(report)))}


def scan(
    path: str | os.PathLike, plain: pathlib.Path, kind: Kind, on_bad: OnBad, begin: int, end: int, first_line: int
) -> list[Entry]:
    """An entry for every line that begins in the bytes [begin, end); the first of these lines has the number `first_line`.

    An entry's value is the number of its line and the byte it begins at. Where a bad line is fatal the scan ends with it.
    """
    entries = []
    for line, (offset, text) in enumerate(lines_between(plain, begin, end), first_line):
        if not is_blank(text):
            _, id, error = read_line(text, kind, path, line)
            entries.append(Entry(line, id, error, (line, offset)))
            if error and on_bad == "fatal":
                break
    return entries


def lines_between(plain: pathlib.Path, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(first byte, line) of the lines of a file that begin in [begin, end)."""
    with open(plain, "rb") as file:
        if begin:
            file.seek(begin - 1)
            next_line(file)
        while (offset := file.tell()) < end and (text := next_line(file)):
            yield offset, text


def _unpack(path: str | os.PathLike, plain: pathlib.Path) -> None:
    with files.replacing(plain) as file:
        file.writelines(text + b"\n" if is_too_long(text) else text for _, text in read_lines(path))


def _stamp(path: str | os.PathLike) -> str:
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
    except OSError as error:
        raise InputError(f"{path}: cannot read the file ({error.strerror})") from None
    return f"{found.st_size} {found.st_mtime_ns}"


def _together(work: Callable[[], T]) -> list[T]:
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


def _kept(
    path: pathlib.Path,
    stamp: str,
    find: Callable[[], dict[str, np.ndarray]],
    check: Callable[[dict[str, np.ndarray]], bool],
) -> dict[str, np.ndarray]:
    """The arrays kept at `path` if they have this stamp and pass the check; otherwise those of `find`, which are kept there.

    If the file is missing or damaged for one process, all of them call `find`.
    """
    found = _load(path)
    if distributed.any_process(found is None or str(found["stamp"]) != stamp or not check(found)):
        found = find()
        content = io.BytesIO()
        np.savez(content, stamp=np.array(stamp), **found)
        files.write(path, content.getvalue())
    return found


def _load(path: pathlib.Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file that `_kept` wrote; None where there is none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored) if "stamp" in stored else None
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error):
        return None


def _is_index(found: dict[str, np.ndarray], plain: pathlib.Path) -> bool:
    """Whether these are the arrays of `_find`, and the file they point into is there."""
    try:
        lines, offsets, size = (found[name] for name in ("lines", "offsets", "size"))
        ReadReport(**json.loads(str(found["report"])))
        sound = lines.dtype == offsets.dtype == np.int64 and lines.ndim == 1 and lines.shape == offsets.shape
        return bool(sound and plain.stat().st_size == int(size))
    except (KeyError, TypeError, ValueError, OSError):
        return False
