"""Records that are read when they are asked for: which rows of a source are good is found once, by all processes together.

Every process reads its own part of the rows. What all of them found is merged in the order of the rows, so that it does not
depend on the number of processes, and kept in the run's directory.
"""

import array
import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import tqdm
from numpy.typing import DTypeLike

from spct_jax.data import kept
from spct_jax.data.comparison import given_id
from spct_jax.data.draws import Shares
from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.data.kinds import Kind
from spct_jax.data.layouts import Layout, LeftOut
from spct_jax.data.rows import Rows
from spct_jax.errors import InputError
from spct_jax.runtime import distributed
from spct_jax.storage import digests
from spct_jax.storage.paths import Path

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
            where: 'file:line' or 'file: row number' of a record, for messages; nothing where it comes from no file.
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
        """'file:line' or 'file: row number' of a record; nothing where it comes from no file."""
        return self._where(int(self.numbers[index]))

    def __add__(self, other: "Records[T]") -> "Records[T]":
        count = len(self)
        return Records(lambda i: self[i] if i < count else other[i - count], range(count + len(other)))


def index_rows(
    rows: Rows,
    layout: Layout,
    kind: Kind[T],
    *,
    on_bad: OnBad,
    source: str,
    path: Path,
    shared: bool = True,
) -> tuple[Records[T], ReadReport]:
    """The records of all good rows, each made when it is asked for, and a report of all rows.

    Args:
        rows: what is read.
        layout: what the rows are.
        kind: what the records must be.
        on_bad: 'fatal' raises at the first bad row; 'skip' leaves it out and counts it.
        source: what the rows are called where the message is about all of them.
        path: the file that keeps which rows are good, until they change; it is made anew when it is damaged.
        shared: whether all processes call this, and each reads a part of the rows.

    Raises:
        InputError: naming file and row; or the source, when it gives no record.
    """
    make = kind.made_by(layout)
    rows.check_columns(layout.columns)
    stamp = f"{rows.stamp} {source} {layout.name} {kind.name} {kind.check.__name__} {on_bad}"
    read = functools.partial(read_row, rows, layout, kind, make)
    found = kept.arrays(path, stamp, lambda: _find(rows, read, kind.name, on_bad, source, shared), _is_index, shared=shared)
    places, parts = found["rows"], found["parts"]

    def record(number: int) -> T:
        row = int(places[number])
        items, error = read(row)
        item = items[parts[number]] if not error else Item(error=error)
        if item.error:
            raise InputError(f"{rows.where(row)}: {item.error}")
        return item.record

    return (
        Records(record, range(len(places)), stamp, lambda number: rows.where(int(places[number]))),
        ReadReport(**json.loads(str(found["report"]))),
    )


def survey(
    records: Records[T],
    measure: Callable[[T], int | tuple[int, ...]],
    path: Path,
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
        for number, record in enumerate(tqdm.tqdm(part, path.name, delay=5, unit="record", disable=not distributed.is_first())):
            found[number] = measure(record)
        return found

    def check(found: dict[str, np.ndarray]) -> bool:
        return "found" in found and found["found"].dtype == dtype and found["found"].shape == (len(records), *shape)

    which = digests.of_bytes(records.numbers.tobytes())
    stamp = f"{records.stamp} {which} {stamp}"
    return kept.arrays(path, stamp, lambda: {"found": np.concatenate(kept.together(measure_part))}, check)["found"]


class Item(NamedTuple):
    """What became of one record of a row."""

    record: object = None
    id: str | None = None
    """Must be unique; None where the row brings none."""
    error: str = ""
    """What is wrong with it by itself, or why it is left out, if anything."""
    is_bad: bool = True
    """Whether the error is one of the data; otherwise the layout leaves such records out."""


def read_row(rows: Rows, layout: Layout, kind: Kind[T], make: Callable, number: int) -> tuple[list[Item], str]:
    """(what became of each record of a row; what is wrong with the row as a whole, or nothing)."""
    try:
        row = rows[number]
        made = [*make(row, rows.default_id(number))]
        id = given_id(row) if layout.brings_ids else None
    except InputError as error:
        return [], str(error).removeprefix(f"{rows.where(number)}: ")
    id, items = None if id is None else str(id), []
    for record in made:
        if isinstance(record, LeftOut):
            items.append(Item(error=record.reason, is_bad=False))
            continue
        try:
            kind.check(record)
            items.append(Item(record, id))
        except InputError as error:
            items.append(Item(record, id, str(error)))
    return items, ""


@dataclasses.dataclass
class Scan:
    """What the rows [first, last) hold. Where a bad row is fatal it ends with the first one."""

    rows: array.array = dataclasses.field(default_factory=lambda: array.array("q"))
    """The row of every record, good or not."""
    parts: array.array = dataclasses.field(default_factory=lambda: array.array("i"))
    """Which of its row's records it is."""
    ids: list[str | None] = dataclasses.field(default_factory=list)
    errors: dict[int, tuple[str, bool]] = dataclasses.field(default_factory=dict)
    """Index of a record that is not good -> (what is wrong, whether the data are to blame)."""

    def add(self, row: int, part: int, id: str | None, error: str = "", is_bad: bool = True) -> None:
        """Adds a record, or a row that gives none, as a record with an error."""
        if error:
            self.errors[len(self.rows)] = (error, is_bad)
        self.rows.append(row)
        self.parts.append(part)
        self.ids.append(id)


def scan(read: Callable[[int], tuple[list[Item], str]], first: int, last: int, on_bad: OnBad, title: str = "") -> Scan:
    """Reads the rows [first, last); with a bar of progress where that has a title and takes long."""
    found = Scan()
    for row in tqdm.tqdm(range(first, last), title, unit="row", delay=3, mininterval=1, disable=not title):
        items, error = read(row)
        if error:
            found.add(row, 0, None, error)
        for part, item in enumerate(items):
            found.add(row, part, item.id, item.error, item.is_bad)
        if on_bad == "fatal" and (error or any(item.error and item.is_bad for item in items)):
            break
    return found


def settle(
    rows: Rows, scans: Sequence[Scan], name: str, on_bad: OnBad, source: str
) -> tuple[np.ndarray, np.ndarray, ReadReport]:
    """Rows and parts, Int64[N] each, of the good records of scans that follow one another; a repeated id makes one bad.

    Raises:
        InputError: naming file and row, or the source when nothing is left.
    """
    places, parts, report = array.array("q"), array.array("q"), ReadReport()
    first, last = {}, -1
    for found in scans:
        for number, (row, part, id) in enumerate(zip(found.rows, found.parts, found.ids, strict=True)):
            report.read += row != last
            last = row
            error, is_bad = found.errors.get(number, ("", True))
            if id is not None and id in first:
                error, is_bad = f"duplicate id ({id!r}, first {_beside(rows.where(first[id]), rows.where(row))})", True
            if error:
                report.drop(InputError(f"{rows.where(row)}: {error}"), rows.where(row), on_bad if is_bad else "skip")
                continue
            if id is not None:
                first[id] = row
            places.append(row)
            parts.append(part)
    report.used = len(places)
    if not places:
        reasons = "; ".join(f"{count} skipped: {reason}" for reason, count in report.skipped.items())
        raise InputError(f"{source}: holds no {name}" + (f" ({reasons})" if reasons else ""))
    return np.array(places), np.array(parts), report


def _beside(where: str, other: str) -> str:
    """How a message about a row calls another one: without the name of the file if that is the same."""
    file, _, place = where.rpartition(":")
    if not other.startswith(f"{file}:"):
        return f"at {where}"
    return f"on line {place}" if place.isdigit() else f"in{place}"


def _find(rows: Rows, read: Callable, name: str, on_bad: OnBad, source: str, shared: bool) -> dict[str, np.ndarray]:
    """The arrays of an index: rows and parts of the records, and the report. This process reads its part of the rows."""
    index, count = distributed.process_index_and_count() if shared else (0, 1)
    title = f"reading {source}" if not index else ""
    found = scan(read, len(rows) * index // count, len(rows) * (index + 1) // count, on_bad, title)
    places, parts, report = settle(rows, distributed.gather(found) if shared else [found], name, on_bad, source)
    return {"rows": places, "parts": parts, "report": np.array(json.dumps(vars(report)))}


def _is_index(found: dict[str, np.ndarray]) -> bool:
    """Whether these are the arrays of `_find`."""
    try:
        places, parts = found["rows"], found["parts"]
        ReadReport(**json.loads(str(found["report"])))
        return places.dtype == parts.dtype == np.int64 and places.ndim == 1 and places.shape == parts.shape
    except (KeyError, TypeError, ValueError):
        return False
