"""Files of comparisons and demonstrations, every bad line named."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from spct_jax.data.comparison import Comparison, Turn, as_texts, as_turns, check_alternation, from_json, given_id
from spct_jax.data.jsonl import OnBad, ReadReport, check_on_bad, is_blank, parse_line, read_lines
from spct_jax.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Demonstration:
    """A conversation and one or more good answers to it, to imitate.

    Attributes:
        turns: the conversation: user and assistant in turn, the user first and last, perhaps a system turn before them; dicts
            are accepted as in `Comparison`.
        completions: the answers, none of them blank.

    Raises:
        InputError: in one line, for whatever is wrong.
    """

    turns: tuple[Turn, ...]
    completions: tuple[str, ...]

    def __post_init__(self):
        object.__setattr__(self, "turns", as_turns(self.turns, "turns"))
        check_alternation(self.turns)
        object.__setattr__(self, "completions", as_texts(self.completions, "completions", "completion"))


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What the lines of a file are made into.

    Attributes:
        name: what they are, in a word.
        make: `make(record, where, line)` gives one of them, or raises InputError, '<where>: ...'.
        check: raises InputError, '<where>: ...', for one that is well-formed but unusable.
    """

    name: str
    make: Callable[[dict[str, Any], str, int], T]
    check: Callable[[T, str], None] = lambda *_: None


def read_comparisons(
    path: str | os.PathLike, *, on_bad: OnBad = "fatal", need_best: bool = False
) -> tuple[list[Comparison], ReadReport]:
    """The comparisons in a .jsonl or .jsonl.gz file, in its order.

    Args:
        path: the file; see `comparison.from_json` for its objects. The id of a record without one is its line number; it is
            never taken for a duplicate of a given id.
        on_bad: 'fatal' raises at the first bad line; 'skip' leaves it out and counts it.
        need_best: whether a record without one best response is bad. A single response then needs score 0 or 1.

    Raises:
        InputError: naming file and line; or the file, when it is missing or damaged or gives no comparison.
    """
    return _read(path, DECIDED if need_best else COMPARISONS, on_bad)


def read_demonstrations(path: str | os.PathLike, on_bad: OnBad = "fatal") -> tuple[list[Demonstration], ReadReport]:
    """The demonstrations in a .jsonl or .jsonl.gz file of {"turns": [{"role", "content"}], "completions": [text]}.

    Arguments and errors are those of `read_comparisons`.
    """
    return _read(path, DEMONSTRATIONS, on_bad)


def read_line(text: bytes, kind: Kind[T], path: str | os.PathLike, line: int) -> tuple[T | None, str | None, str]:
    """(the record on a line, or None; the id that it brings; what is wrong with it, or nothing).

    A record that is well-formed but unusable comes with its error.
    """
    where = f"{path}:{line}"
    try:
        record = parse_line(text, where)
        made = kind.make(record, where, line)
    except InputError as error:
        return None, None, str(error)
    id = given_id(record) if hasattr(made, "id") else None
    try:
        kind.check(made, where)
        error = ""
    except InputError as raised:
        error = str(raised)
    return made, None if id is None else str(id), error


class Entry(NamedTuple):
    """A line of a file that is not blank."""

    line: int
    id: str | None
    """Must be unique in the file; None where the line brings none."""
    error: str
    """What is wrong with it by itself, if anything."""
    value: Any
    """What to keep of it."""


def settle(path: str | os.PathLike, entries: Iterable[Entry], name: str, on_bad: OnBad) -> tuple[list[Any], ReadReport]:
    """The values of a file's good lines, and a report of all of them; a repeated id makes a line bad.

    Args:
        path: the file.
        entries: its lines, in order.
        name: what they are, in a word.
        on_bad: as in `read_comparisons`.

    Raises:
        InputError: naming file and line, or the file when nothing is left.
    """
    check_on_bad(on_bad)
    values, report, lines_by_id = [], ReadReport(), {}
    for line, identifier, error, value in entries:
        report.read += 1
        where = f"{path}:{line}"
        if identifier is not None and identifier in lines_by_id:
            error = f"{where}: duplicate id ({identifier!r}, first on line {lines_by_id[identifier]})"
        if error:
            report.drop(InputError(error), where, on_bad)
        else:
            if identifier is not None:
                lines_by_id[identifier] = line
            values.append(value)
    report.used = len(values)
    if not values:
        reasons = "; ".join(f"{count} skipped: {reason}" for reason, count in report.skipped.items())
        raise InputError(f"{path}: holds no {name}" + (f" ({reasons})" if reasons else ""))
    return values, report


def _read(path: str | os.PathLike, kind: Kind[T], on_bad: OnBad) -> tuple[list[T], ReadReport]:
    def entries() -> Iterator[Entry]:
        for line, text in read_lines(path):
            if not is_blank(text):
                made, id, error = read_line(text, kind, path, line)
                yield Entry(line, id, error, made)

    return settle(path, entries(), kind.name, on_bad)


def _check_best(comparison: Comparison, where: str) -> None:
    if comparison.scores is None:
        raise InputError(f"{where}: no scores, so no best response")
    if comparison.best is None:
        raise InputError(f"{where}: no unique best response ({max(comparison.scores):g} is the top score of several)")
    if comparison.n == 1 and comparison.scores[0] not in (0, 1):
        raise InputError(f"{where}: score of a single response is not 0 or 1 ({comparison.scores[0]:g})")


def _demonstration(record: dict[str, Any], where: str, _: int) -> Demonstration:
    try:
        for key in ("turns", "completions"):
            if key not in record:
                raise InputError(f"missing field {key!r}")
        return Demonstration(record["turns"], record["completions"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


COMPARISONS = Kind("comparisons", from_json)
DECIDED = Kind("comparisons", from_json, _check_best)
"""With one best response each."""
DEMONSTRATIONS = Kind("demonstrations", _demonstration)
