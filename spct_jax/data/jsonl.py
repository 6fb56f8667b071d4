"""JSON Lines, plain or gzipped: one streaming reader whose errors name file and line, and one writer."""

import codecs
import gzip
import itertools
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

from spct_jax.errors import InputError
from spct_jax.storage import append_only, files

OnBad = Literal["fatal", "skip"]
"""What a bad line does: 'fatal' raises, 'skip' leaves it out and counts it."""
EXAMPLES = 3
LONGEST_LINE = 1 << 24
"""Bytes of a line; a longer one is an error of its own and never held in memory."""
_OTHER_FILES = {
    b"\x1f\x8b": "gzip data (its name does not end in .gz)",
    b"PAR1": "a parquet file",
    b"PK\x03\x04": "a zip archive",
    codecs.BOM_UTF16_LE: "UTF-16 text",
    codecs.BOM_UTF16_BE: "UTF-16 text",
}
"""First bytes of files that are no JSON Lines, and what they are."""
_SPREAD = {b"[": "a JSON array", b"{": "JSON objects over several lines"}
"""First lines of JSON that is spread over several lines, and what it is."""


@dataclass
class ReadReport:
    """What became of the lines of a file; blank lines do not count.

    Attributes:
        read: lines read.
        used: records made of them.
        skipped: how many lines were left out, by reason.
        examples: of every reason the first lines that were read, as messages with file and line.
    """

    read: int = 0
    used: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict, compare=False)

    def skip(self, reason: str, example: str = "") -> None:
        """Counts one line left out; details in parentheses at the end of a reason are not part of it."""
        reason = re.sub(r" \(.*\)$", "", reason, flags=re.DOTALL)
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        if example and self.skipped[reason] <= EXAMPLES:
            self.examples.setdefault(reason, []).append(example)

    def drop(self, error: InputError, where: str, on_bad: OnBad) -> None:
        """Raises the error of a bad line, '<where>: ...', where that is fatal; else counts the line as left out."""
        if on_bad == "fatal":
            raise error
        self.skip(str(error).removeprefix(f"{where}: "), str(error))


def read_jsonl(
    path: str | os.PathLike, on_bad: OnBad = "fatal", report: ReadReport | None = None, *, growing: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers from 1 and the JSON objects of a .jsonl or .jsonl.gz file; blank lines are passed over.

    Args:
        path: the file.
        on_bad: 'fatal' raises at the first bad line; 'skip' leaves it out.
        report: where given, counts the lines read and left out.
        growing: whether a killed writer may have cut the last line short; where it is bad and has no end, it is left out.

    Raises:
        InputError: naming file and line, or the file when it cannot be read or, unless it is `growing`, is of another kind.
    """
    check_on_bad(on_bad)
    report = ReadReport() if report is None else report
    lines = read_lines(path)
    for line, text in lines if growing else check_lines(lines, path):
        if is_blank(text):
            continue
        report.read += 1
        where = f"{path}:{line}"
        try:
            record = parse_line(text, where)
        except InputError as error:
            if growing and not text.endswith(b"\n"):
                return
            report.drop(error, where, on_bad)
        else:
            yield line, record


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
    line = 0
    try:
        with append_only.reading(path) as raw, gzip.open(raw) if str(path).endswith(".gz") else raw as file:
            while text := next_line(file, longest):
                line += 1
                yield line, text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}:{line + 1}: damaged or truncated gzip data ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read the file ({error.strerror})") from None


def check_lines(lines: Iterable[tuple[int, bytes]], name: str | os.PathLike) -> Iterator[tuple[int, bytes]]:
    """The same lines, as of `read_lines`, if `name` may be JSON Lines: no single line is wrong with another kind of file.

    Raises:
        InputError: the first line is one of another kind of file: compressed, parquet, UTF-16, or JSON over several lines.
    """
    lines = iter(lines)
    first, rest = next(lines, None), ()
    if first is not None:
        text = first[1].removeprefix(codecs.BOM_UTF8).strip()
        what = next((what for start, what in _OTHER_FILES.items() if text.startswith(start)), _SPREAD.get(text))
        if what is None and text.startswith(b"["):  # of several lines this may be a bad one
            rest = tuple(itertools.islice(lines, 1))
            what = None if rest else _SPREAD[b"["]
        if what is not None:
            raise InputError(f"{name}: not JSON Lines but {what}")
        yield first
    yield from itertools.chain(rest, lines)


def parse_line(text: bytes, where: str) -> dict[str, Any]:
    """The JSON object on one line; InputError, '<where>: ...', when it is not UTF-8, not JSON, no object or repeats a key."""
    if is_too_long(text):
        raise InputError(f"{where}: line longer than {LONGEST_LINE:,} bytes")
    try:
        # Without the end of the line, behind which the parser would find what is missing in one that is cut short.
        record = json.loads(text.decode("utf-8-sig").rstrip("\r\n"), object_pairs_hook=without_repeats)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 (byte {error.start + 1} of the line)") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: {not_json(error)}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON that can be read ({error})") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: not a JSON object ({type(record).__name__})")
    return record


def not_json(error: json.JSONDecodeError) -> str:
    """What is wrong with a line, and at which column; some of the parser's messages end in 'at'."""
    return f"not JSON ({error.msg.removesuffix(' at')} at column {error.colno})"


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its parsed pairs, see `json.loads`; InputError naming a key that stands in it twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        key = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise InputError(f"repeated key ({key!r})")
    return made


def write_jsonl(path: str | os.PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, all of them or nothing; gzipped when the name ends in .gz."""
    text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()
    files.write(path, gzip.compress(text, mtime=0) if str(path).endswith(".gz") else text)


def check_on_bad(on_bad: str) -> None:
    """Raises InputError unless it is one of `OnBad`."""
    if on_bad not in ("fatal", "skip"):
        raise InputError(f"on_bad is {on_bad!r}, but must be 'fatal' or 'skip'")
