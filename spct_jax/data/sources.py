"""Files of comparisons and demonstrations: JSONL, plain or gzipped, every bad line named."""

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Generic, Literal, NamedTuple, TypeVar

from spct_jax import files
from spct_jax.data.comparison import Comparison, Turn, as_texts, as_turns, check_alternation, from_json, given_id
from spct_jax.errors import InputError

OnBad = Literal["fatal", "skip"]
T = TypeVar("T")
LONGEST_LINE = 1 << 24
"""Bytes of a line; a longer one is an error of its own and never held in memory."""


@dataclass
class ReadReport:
    """What became of the lines of a file; blank lines do not count.

    Attributes:
        read: lines read.
        used: records made of them.
        skipped: how many lines were left out, by reason.
    """

    read: int = 0
    used: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str) -> None:
        """Counts one line left out; details in parentheses at the end of a reason are not part of it."""
        reason = re.sub(r" \(.*\)$", "", reason, flags=re.DOTALL)
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


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
        check: raises InputError, '<where>: ...', for one that is whole but will not do.
    """

    name: str
    make: Callable[[dict[str, Any], str, int], T]
    check: Callable[[T, str], None] = lambda *_: None


def read_comparisons(
    path: str | os.PathLike, *, on_bad: OnBad = "fatal", need_best: bool = False
) -> tuple[list[Comparison], ReadReport]:
    """The comparisons in a .jsonl or .jsonl.gz file, in its order.

    Args:
        path: the file; see `comparison.from_json` for its objects. A record without id gets its line number, which is no
            other record's duplicate.
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
    """(what is on a line, or None; the id that it brings; what is wrong with it, or nothing).

    A record that is whole but will not do comes with an error and what it is.
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
    """Must be the first of its name in the file; None where the line brings none, whose number is no other line's name."""
    error: str
    """What is wrong with it by itself, if anything."""
    value: Any
    """What to keep of it."""


def settle(path: str | os.PathLike, entries: Iterable[Entry], name: str, on_bad: OnBad) -> tuple[list[Any], ReadReport]:
    """The values of a file's good lines, and what became of all of them.

    Args:
        path: the file.
        entries: its lines, in order.
        name: what they are, in a word.
        on_bad: as of `read_comparisons`.

    Raises:
        InputError: naming file and line, or the file when nothing is left.
    """
    _check_on_bad(on_bad)
    values, report, lines_by_id = [], ReadReport(), {}
    for line, identifier, error, value in entries:
        report.read += 1
        where = f"{path}:{line}"
        if identifier is not None and identifier in lines_by_id:
            error = f"{where}: duplicate id ({identifier!r}, first on line {lines_by_id[identifier]})"
        if error:
            _drop(InputError(error), where, on_bad, report)
        else:
            if identifier is not None:
                lines_by_id[identifier] = line
            values.append(value)
    report.used = len(values)
    if not values:
        reasons = "; ".join(f"{count} skipped: {reason}" for reason, count in report.skipped.items())
        raise InputError(f"{path}: holds no {name}" + (f" ({reasons})" if reasons else ""))
    return values, report


def next_line(file: BinaryIO, longest: int | None = None) -> bytes:
    """The next line of a file, nothing at its end; of one longer than `longest` (`LONGEST_LINE`) bytes only the start."""
    longest = LONGEST_LINE if longest is None else longest
    text = file.readline(longest + 1)
    if len(text) > longest and not text.endswith(b"\n"):
        while (rest := file.readline(1 << 20)) and not rest.endswith(b"\n"):
            pass
    return text


def is_too_long(text: bytes) -> bool:
    """Whether a line is only the start of one that is too long."""
    return len(text) > LONGEST_LINE and not text.endswith(b"\n")


def is_blank(text: bytes) -> bool:
    """Whether there is nothing on a line."""
    return not is_too_long(text) and not text.strip()


def read_lines(path: str | os.PathLike, longest: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Line numbers from 1 and the lines, undecoded, of a plain file or, by its name, a gzipped one; see `next_line`.

    Raises:
        InputError: when the file cannot be read, or its compressed data is damaged or cut short.
    """
    opened = gzip.open if str(path).endswith(".gz") else open
    line = 0
    try:
        with opened(path, "rb") as file:
            while text := next_line(file, longest):
                line += 1
                yield line, text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}:{line + 1}: damaged or truncated gzip data ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read the file ({error.strerror})") from None


def parse_line(text: bytes, where: str) -> dict[str, Any]:
    """The JSON object on one line; InputError, '<where>: ...', when it is not UTF-8, not JSON, no object or repeats a key."""
    if is_too_long(text):
        raise InputError(f"{where}: line longer than {LONGEST_LINE:,} bytes")
    try:
        record = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_without_repeats)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 (byte {error.start + 1} of the line)") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON that can be read ({error})") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: not a JSON object ({type(record).__name__})")
    return record


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        key = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise InputError(f"repeated key ({key!r})")
    return made


def read_jsonl(
    path: str | os.PathLike, on_bad: OnBad = "fatal", report: ReadReport | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers from 1 and the JSON objects of a .jsonl or .jsonl.gz file; blank lines are passed over.

    Args:
        path: the file.
        on_bad: 'fatal' raises at the first bad line; 'skip' leaves it out.
        report: where given, counts the lines read and left out.

    Raises:
        InputError: naming file and line, or the file when it cannot be read.
    """
    _check_on_bad(on_bad)
    report = ReadReport() if report is None else report
    for line, text in read_lines(path):
        if is_blank(text):
            continue
        report.read += 1
        where = f"{path}:{line}"
        try:
            record = parse_line(text, where)
        except InputError as error:
            _drop(error, where, on_bad, report)
        else:
            yield line, record


def write_jsonl(path: str | os.PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, whole or not at all; gzipped when the name ends in .gz."""
    text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()
    files.write(path, gzip.compress(text, mtime=0) if str(path).endswith(".gz") else text)


def _read(path: str | os.PathLike, kind: Kind[T], on_bad: OnBad) -> tuple[list[T], ReadReport]:
    def entries() -> Iterator[Entry]:
        for line, text in read_lines(path):
            if not is_blank(text):
                made, id, error = read_line(text, kind, path, line)
                yield Entry(line, id, error, made)

    return settle(path, entries(), kind.name, on_bad)


def _check_on_bad(on_bad: str) -> None:
    if on_bad not in ("fatal", "skip"):
        raise InputError(f"on_bad is {on_bad!r}, but must be 'fatal' or 'skip'")


def _drop(error: InputError, where: str, on_bad: OnBad, report: ReadReport) -> None:
    if on_bad == "fatal":
        raise error
    report.skip(str(error).removeprefix(f"{where}: "))


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
