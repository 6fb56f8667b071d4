"""Files of comparisons and demonstrations: JSONL, plain or gzipped, every bad line named."""

import gzip
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from spct_jax import files
from spct_jax.data.comparison import Comparison, Turn, as_texts, as_turns, from_json
from spct_jax.errors import InputError

OnBad = Literal["fatal", "skip"]
T = TypeVar("T")


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
    skipped: dict[str, int] = field(default_factory=Counter)

    def skip(self, reason: str) -> None:
        """Counts one line left out; details in parentheses at the end of a reason are not part of it."""
        reason = re.sub(r" \(.*\)$", "", reason, flags=re.DOTALL)
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


@dataclass(frozen=True)
class Demonstration:
    """A conversation and one or more good answers to it, to imitate.

    Attributes:
        turns: the conversation, whose last turn is the user's; dicts are accepted as in `Comparison`.
        completions: the answers, none of them blank.

    Raises:
        InputError: in one line, for whatever is wrong.
    """

    turns: tuple[Turn, ...]
    completions: tuple[str, ...]

    def __post_init__(self):
        object.__setattr__(self, "turns", as_turns(self.turns, "turns"))
        object.__setattr__(self, "completions", as_texts(self.completions, "completions", "completion"))


def read_comparisons(
    path: str | os.PathLike, *, on_bad: OnBad = "fatal", need_best: bool = False
) -> tuple[list[Comparison], ReadReport]:
    """The comparisons in a .jsonl or .jsonl.gz file, in its order.

    Args:
        path: the file; see `comparison.from_json` for its objects. A record without id gets its line number.
        on_bad: 'fatal' raises at the first bad line; 'skip' leaves it out and counts it.
        need_best: whether a record without one best response is bad. A single response then needs score 0 or 1.

    Raises:
        InputError: naming file and line; or the file, when it is missing or damaged or gives no comparison.
    """
    lines_by_id: dict[str, int] = {}

    def convert(record: dict[str, Any], line: int) -> Comparison:
        where = f"{path}:{line}"
        comparison = from_json(record, where, line)
        if comparison.id in lines_by_id:
            raise InputError(f"{where}: duplicate id ({comparison.id!r}, first on line {lines_by_id[comparison.id]})")
        if need_best:
            _check_best(comparison, where)
        lines_by_id[comparison.id] = line
        return comparison

    return _read(path, convert, on_bad, "comparisons")


def read_demonstrations(path: str | os.PathLike, on_bad: OnBad = "fatal") -> tuple[list[Demonstration], ReadReport]:
    """The demonstrations in a .jsonl or .jsonl.gz file of {"turns": [{"role", "content"}], "completions": [text]}.

    Arguments and errors are those of `read_comparisons`.
    """

    def convert(record: dict[str, Any], line: int) -> Demonstration:
        try:
            for key in ("turns", "completions"):
                if key not in record:
                    raise InputError(f"missing field {key!r}")
            return Demonstration(record["turns"], record["completions"])
        except InputError as error:
            raise InputError(f"{path}:{line}: {error}") from None

    return _read(path, convert, on_bad, "demonstrations")


def read_lines(path: str | os.PathLike) -> Iterator[tuple[int, bytes]]:
    """Line numbers from 1 and the lines, undecoded, of a plain file or, by its name, a gzipped one.

    Raises:
        InputError: when the file cannot be read, or its compressed data is damaged or cut short.
    """
    opened = gzip.open if str(path).endswith(".gz") else open
    line = 0
    try:
        with opened(path, "rb") as file:
            for line, text in enumerate(file, start=1):
                yield line, text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}:{line + 1}: damaged or truncated gzip data ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read the file ({error.strerror})") from None


def parse_line(text: bytes, where: str) -> dict[str, Any]:
    """The JSON object on one line; InputError, '<where>: ...', when it is not UTF-8, not JSON or not an object."""
    try:
        record = json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 (byte {error.start + 1} of the line)") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON that can be read ({error})") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: not a JSON object ({type(record).__name__})")
    return record


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
    if on_bad not in ("fatal", "skip"):
        raise InputError(f"on_bad is {on_bad!r}, but must be 'fatal' or 'skip'")
    report = ReadReport() if report is None else report
    for line, text in read_lines(path):
        if not text.strip():
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


def _read(
    path: str | os.PathLike, convert: Callable[[dict[str, Any], int], T], on_bad: OnBad, what: str
) -> tuple[list[T], ReadReport]:
    records, report = [], ReadReport()
    for line, record in read_jsonl(path, on_bad, report):
        try:
            records.append(convert(record, line))
        except InputError as error:
            _drop(error, f"{path}:{line}", on_bad, report)
    report.used = len(records)
    if not records:
        reasons = "; ".join(f"{count} skipped: {reason}" for reason, count in report.skipped.items())
        raise InputError(f"{path}: holds no {what}" + (f" ({reasons})" if reasons else ""))
    return records, report


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
