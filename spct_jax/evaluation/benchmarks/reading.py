"""What the readers of benchmarks share: rows of files, checked fields, and items of them. Every message names file and row."""

import dataclasses
import math
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.formats import open_rows
from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks.base import Item

Row = Mapping[str, Any]
T = TypeVar("T")


@dataclasses.dataclass
class DataReport(ReadReport):
    """What became of the rows of a benchmark's data, and the ids of those that are good but count nowhere.

    Attributes:
        left_out: these ids; they are counted under `skipped`, too.
    """

    left_out: set[str] = dataclasses.field(default_factory=set)


def leave_out(report: ReadReport, id: str, reason: str) -> list[Item]:
    """No item of a row that the benchmark leaves out; the report says so, and keeps the id if it can."""
    report.skip(reason)
    if isinstance(report, DataReport):
        report.left_out.add(id)
    return []


def find(path: str | os.PathLike, *names: str) -> list[pathlib.Path]:
    """The file, or the files anywhere in the directory whose names have one of these forms, sorted.

    Raises:
        InputError: there is none.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        return [path]
    found = sorted({file for name in names for file in path.rglob(name) if file.is_file()})
    if not found:
        raise InputError(f"{path}: holds no file named {' or '.join(names)}")
    return found


def items(
    path: str | os.PathLike, on_bad: OnBad, report: ReadReport, make: Callable[[Row, int], Item | Iterable[Item]]
) -> list[Item]:
    """The items of one file; `make(row, index)` gives one or several of a row, or raises InputError.

    Raises:
        InputError: naming file and row, of a bad row (with `on_bad` 'skip' it is counted and left out), or of the file.
    """
    made: list[Item] = []
    for new in parsed(path, on_bad, report, make):
        made += [new] if isinstance(new, Item) else new
    return made


def parsed(path: str | os.PathLike, on_bad: OnBad, report: ReadReport, parse: Callable[[Row, int], T]) -> Iterator[T]:
    """What `parse(row, index)` makes of the rows of one file; errors are those of `items`."""
    rows = open_rows(str(path))
    for index in range(len(rows)):
        report.read += 1
        where = rows.where(index)
        try:
            row = rows[index]
        except InputError as error:
            report.drop(error, where, on_bad)
            continue
        try:
            new = parse(row, index)
        except InputError as error:
            report.drop(InputError(f"{where}: {error}"), where, on_bad)
        else:
            report.used += new != []
            yield new


def check_ids(items: Sequence[Item], path: str | os.PathLike) -> list[Item]:
    """The same items; InputError naming an id that several have, or the path when there are no items."""
    if not items:
        raise InputError(f"{path}: holds no items")
    id, count = Counter(item.id for item in items).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: {count} items have the id {id!r}")
    return list(items)


def item(
    id: str,
    conversation: str | Sequence[Turn | Mapping[str, str]],
    responses: Sequence[Any],
    best: int | None,
    subset: str = "",
    label: Any = None,
    pairs: tuple[tuple[int, int], ...] = (),
    reference: Any = None,
) -> Item:
    """An item; where a judge cannot be shown it (an empty response, say) it is kept, and says why in `unjudgeable`.

    A reference that is no text, or a blank one, is none.
    """
    turns = [Turn("user", conversation)] if isinstance(conversation, str) else conversation
    try:
        shown, reason = Comparison(conversation=turns, responses=responses, id=id), ""
    except InputError as error:
        shown, reason = None, str(error)
    known = reference if isinstance(reference, str) and reference.strip() else None
    return Item(id, len(responses), best, subset, label, shown, pairs, reason, known)


def text(row: Row, field: str) -> str:
    """A field that must be there and a string."""
    value = field_of(row, field)
    if not isinstance(value, str):
        raise InputError(f"{field} is not a string ({type(value).__name__})")
    return value


def one_of(row: Row, field: str, choices: Sequence[Any]) -> Any:
    """A field that must be there and one of the choices."""
    value = field_of(row, field)
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        raise InputError(f"{field} is not one of {', '.join(map(str, choices))} ({value!r:.60})")
    return value


def name(row: Row, field: str, missing: Any = None) -> str:
    """A field that is a text or a number, such as an id, as a text; one that is not there, or null, is `missing` if given."""
    if missing is not None and row.get(field) is None:
        return str(missing)
    return str(text_or_number(row, field))


def text_or_number(row: Row, field: str) -> str | int | float:
    """A field that must be there and a text or a number, and of those no NaN, which stands for a gap, or infinity."""
    value = field_of(row, field)
    finite = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    if isinstance(value, bool) or not finite:
        raise InputError(f"{field} is neither a text nor a finite number ({value!r:.60})")
    return value


def turns(row: Row, field: str) -> list[dict[str, Any]]:
    """A field that must be there and a list of messages; of each, its role and content."""
    return [{"role": turn.get("role"), "content": turn.get("content")} for turn in list_of(row, field, dict)]


def list_of(row: Row, field: str, kind: type | tuple[type, ...], length: int | None = None) -> list:
    """A field that must be there and a list of this type, and of this length where one is given."""
    value = field_of(row, field)
    if not isinstance(value, list) or not all(isinstance(entry, kind) for entry in value):
        raise InputError(f"{field} is not a list of the expected type ({value!r:.60})")
    if length is not None and len(value) != length:
        raise InputError(f"{field} has {len(value)} entries instead of {length}")
    return value


def fields(row: Row, *names: str) -> list[Any]:
    """Fields that must be there."""
    return [field_of(row, name) for name in names]


def field_of(row: Row, field: str) -> Any:
    """A field that must be there; so must the object that has it."""
    if not isinstance(row, Mapping):
        raise InputError(f"not an object with {field!r} ({row!r:.60})")
    if field not in row:
        raise InputError(f"missing field {field!r}")
    return row[field]
