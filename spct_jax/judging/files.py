"""A file of comparisons into a file of verdicts: line N of the output answers line N of the input, whatever is on it.

Lines are written in order as they come, so an output cut anywhere is the start of the whole one. Resuming is to read it
beside the input, drop a last line without its end, and go on.
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import tqdm

from spct_jax import errors, files
from spct_jax.data.comparison import Comparison, from_json, given_id
from spct_jax.data.jsonl import OnBad, is_blank, next_line, parse_line, read_lines
from spct_jax.errors import InputError
from spct_jax.judging import verdicts
from spct_jax.judging.verdicts import Summary

STREAM = "-"
"""Stands for standard input or output."""
LONGEST = 4_000_000
"""Characters in a comparison; no context holds that many, and a tokenizer would take long to find it out."""
MOST_WAITING = 100_000
"""Lines read ahead of what is written, so that a run of bad lines behind a slow comparison stays out of memory."""
BLANK = "blank line"


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the input: a comparison, or why it is none.

    Attributes:
      where: 'file:number', for messages.
      number: counted from 1.
      id: as it was given, or the number of the line; None where it could not be read.
      comparison: None on a bad line.
      error: None on a good one.
      digest: of what the verdict depends on, which is not the scores that people gave; of all bytes of a bad line.
    """

    where: str
    number: int
    id: str | int | None
    comparison: Comparison | None
    error: str | None
    digest: str
    named: bool = False
    """Whether the id was given; then no other line may have the same."""

    @property
    def bad(self) -> bool:
        """Whether something on the line is wrong; on a blank one there is nothing."""
        return self.error not in (None, BLANK)

    def failed(self, error: str) -> dict[str, Any]:
        """The record that stands in the output where there is no verdict."""
        return {"id": self.id, "line": self.number, "error": error, "digest": self.digest}


def read_input(source: str) -> Iterator[Line]:
    """The lines of a .jsonl or .jsonl.gz file or of standard input; bad ones carry their error.

    Raises:
      InputError: the file cannot be read.
    """
    name = "<stdin>" if source == STREAM else source
    lines = enumerate(iter(lambda: next_line(sys.stdin.buffer), b""), 1) if source == STREAM else read_lines(source)
    first_lines: dict[bytes, int] = {}  # by a hash: a million long ids are as small as a million short ones
    for number, text in lines:
        line = _read_line(text, f"{name}:{number}", number)
        if line.comparison is not None and line.named:
            # 7 and "7" are one name: the command line could not tell them apart.
            digest = hashlib.blake2b(str(line.id).encode("utf-8", "surrogatepass"), digest_size=16).digest()
            first = first_lines.setdefault(digest, number)
            if first != number:
                error = f"duplicate id ({str(line.id)!r}, first on line {first})"
                line = dataclasses.replace(line, comparison=None, error=error)
        yield line


def judge_file(
    source: str,
    target: str,
    load: Callable[[], Any],
    *,
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
    on_bad: OnBad = "fatal",
) -> Summary:
    """Scores a file, going on where an earlier run was interrupted; returns figures over the whole output.

    Args:
      source: the input, or '-'.
      target: the output, or '-'. Only a regular file can be resumed.
      load: gives the `judging.Judge`; not called when there is nothing left to score.
      options: keyword arguments of `Judge.stream`.
      settings: what verdicts depend on. Kept beside the output, which is resumed under the same ones only.
      on_bad: 'skip' writes an error record in place of a verdict; 'fatal' stops there.

    Raises:
      InputError: a bad line when they are fatal, a file that cannot be read or written, or an output that is not the
        start of this one. What has been written stays.
    """
    summary, lines, total = Summary(), read_input(source), _count_lines(source)
    with _opened(target) as file:
        resumable = _is_resumable(target)
        if resumable:
            _check_settings(target, settings)
        done = _resume(file, source, target, lines, summary) if resumable else 0
        if (following := next(lines, None)) is None:
            return summary
        judge = load()
        if resumable:
            if done:
                _check_digests(target, judge.digests)
            files.write_json(_settings_path(target), {**settings, "digests": judge.digests})
        outcomes = _outcomes(judge, itertools.chain([following], lines), options, on_bad)
        for line, record in tqdm.tqdm(outcomes, "judging", total, initial=done, unit="comparison", mininterval=1):
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            file.flush()
            _tally(summary, line, record)
    return summary


def find(source: str, wanted: str) -> Line:
    """The line of that id or, where no comparison has it, of that number; a good line goes before a bad one of its id.

    Raises:
      InputError: there is none, or it is a bad one.
    """
    named = numbered = None
    for line in read_input(source):
        if line.named and str(line.id) == wanted:
            named = named or line
            if line.comparison is not None:
                return line
        if str(line.number) == wanted:
            numbered = line
    line = named or numbered
    if line is None:
        raise InputError(f"{source}: no comparison has the id {wanted!r}, and it is not the number of a line")
    if line.comparison is None:
        raise InputError(f"{line.where}: {line.error}")
    return line


def find_record(target: str, line: Line) -> dict[str, Any] | None:
    """What an output says of a line of its input, or None if it does not go that far."""
    if not pathlib.Path(target).is_file():
        return None
    text = next((text for number, text in read_lines(target, sys.maxsize - 1) if number == line.number), b"")
    if not text.endswith(b"\n"):
        return None
    return _answer(text, target, line)


def _read_line(text: bytes, where: str, number: int) -> Line:
    digest = hashlib.blake2b(text.strip(), digest_size=8).hexdigest()
    if is_blank(text):
        return Line(where, number, None, None, BLANK, digest)
    id, named = None, False
    try:
        record = parse_line(text, where)
        given = record.get("id")
        id, named = (number, False) if given is None else (given_id(record), True)
        comparison = from_json(record, where, number)
        if comparison.characters > LONGEST:
            raise InputError(f"longer than any context ({comparison.characters:,} characters)")
        return Line(where, number, id, comparison, None, comparison.digest, named)
    except InputError as error:
        return Line(where, number, id, None, str(error).removeprefix(f"{where}: "), digest, named)


def _outcomes(
    judge: Any, lines: Iterable[Line], options: Mapping[str, Any], on_bad: OnBad
) -> Iterator[tuple[Line, dict[str, Any]]]:
    """The record of each line, in order: verdicts as the judge finds them, errors where they stand between."""
    lines = iter(lines)
    waiting: collections.deque[Line] = collections.deque()

    def comparisons(first: Line) -> Iterator[Comparison]:
        for line in itertools.chain([first], lines):
            waiting.append(line)
            if line.comparison is not None:
                yield line.comparison
            if len(waiting) >= MOST_WAITING or (line.bad and on_bad == "fatal"):
                return

    def errors() -> Iterator[tuple[Line, dict[str, Any]]]:
        while waiting and waiting[0].comparison is None:
            line = waiting.popleft()
            if line.bad and on_bad == "fatal":
                raise InputError(f"{line.where}: {line.error}")
            yield line, line.failed(line.error)

    # A stream ends before the input does only where nothing more may be read before what waits is written.
    for first in lines:
        with contextlib.closing(judge.stream(comparisons(first), **options)) as outcomes:
            for outcome in outcomes:
                yield from errors()
                line = waiting.popleft()
                if isinstance(outcome, InputError):
                    if on_bad == "fatal":
                        raise InputError(f"{line.where}: {outcome}")
                    yield line, line.failed(str(outcome))
                elif outcome.id != line.comparison.id:
                    raise RuntimeError(f"the judge answered {outcome.id!r} where {line.id!r} was next")
                else:
                    yield line, verdicts.to_json(outcome) | {"id": line.id, "digest": line.digest}
        yield from errors()
        if waiting:
            raise RuntimeError(f"the judge left {waiting[0].id!r} unanswered")


def _tally(summary: Summary, line: Line, record: Mapping[str, Any]) -> None:
    if line.error == BLANK:
        summary.add_blank()
    elif "error" in record:
        summary.add_error(record["error"])
    else:
        summary.add_verdict(record, line.comparison)


def _resume(file: BinaryIO, source: str, target: str, lines: Iterator[Line], summary: Summary) -> int:
    """Counts the whole lines of the output, each checked against the input's, and cuts off what follows them."""
    done = 0
    for text in files.whole_lines(file):
        line = next(lines, None)
        if line is None:
            raise InputError(f"{target}:{done + 1}: {source} has no such line; is this the output of another input?")
        _tally(summary, line, _answer(text, target, line))
        done += 1
    return done


def _answer(text: bytes, target: str, line: Line) -> dict[str, Any]:
    """The record on a line of the output; InputError unless it belongs to that line of the input."""
    where = f"{target}:{line.number}"
    record = parse_line(text, where)
    failed = isinstance(record.get("error"), str)
    if record.get("id") == line.id and (record.get("line") == line.number if failed else _is_verdict(record, line)):
        if record.get("digest") == line.digest:
            return record
        raise InputError(f"{where}: answers other texts than those that {line.where} holds now; choose another --output")
    found = f"an error record ({record['error']})" if failed else f"a verdict on {record.get('id')!r}"
    wanted = f"a bad line ({line.error})" if line.comparison is None else f"{line.id!r} with {line.comparison.n} responses"
    raise InputError(f"{where}: {found}, but {line.where} is {wanted}; is this the output of another input?")


def _is_verdict(record: Mapping[str, Any], line: Line) -> bool:
    scores, samples, *counts = (record.get(field) for field in ("scores", "samples", "valid", "truncated"))
    whole = all(isinstance(n, int) for n in counts) and isinstance(record.get("tied"), list)
    whole = whole and isinstance(samples, list) and isinstance(scores, list | None)
    return whole and line.comparison is not None and (scores is None or len(scores) == line.comparison.n)


def _settings_path(target: str) -> pathlib.Path:
    return pathlib.Path(f"{target}.settings.json")


def _check_settings(target: str, settings: Mapping[str, Any]) -> None:
    """InputError if there are lines in the output that were written under other settings, or not by this command."""
    path = _settings_path(target)
    if not os.path.getsize(target):
        return
    if not path.exists():
        raise InputError(f"{target}: not an output to go on with ({path} is missing); choose another --output")
    found, wanted = files.read_json(path), json.loads(json.dumps(settings))
    found.pop("digests", None)
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(
                f"{target}: begun with --{name}={found.get(name)}, not {wanted.get(name)}; choose another --output"
            )


def _check_digests(target: str, digests: Mapping[str, str]) -> None:
    """InputError if what was loaded is not what the output was begun with, though its names are the same."""
    settings = files.read_json(_settings_path(target))
    found = settings.get("digests")
    for name in sorted(digests):
        if not isinstance(found, dict) or found.get(name) != digests[name]:
            what = "text" if name == "template" else "parameters, tokenizer or templates"
            named = "" if settings.get(name) is None else f"={settings[name]}"
            changed = f"--{name}{named} has other {what} than the output was begun with"
            raise InputError(f"{target}: {changed}; choose another --output")


def _is_resumable(target: str) -> bool:
    return target != STREAM and pathlib.Path(target).is_file()


@contextlib.contextmanager
def _opened(target: str) -> Iterator[BinaryIO]:
    """The output, to read from its start and to write at its end."""
    if target == STREAM:
        with errors.naming("standard output"):
            yield sys.stdout.buffer
        return
    if target.endswith(".gz"):
        raise InputError(f"{target}: the output cannot be compressed, since an interrupted run goes on in it")
    try:
        # A device or a pipe is written as it is; only what was there before is ever read back.
        file = open(target, "a+b" if not os.path.exists(target) or _is_resumable(target) else "wb")
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror})") from None
    with errors.naming(target), file:
        files.lock(file, f"{target}: another run is writing it")
        yield file


def _count_lines(source: str) -> int | None:
    """How many lines there are; None where they can be read but once."""
    if source == STREAM or (os.path.exists(source) and not os.path.isfile(source)):
        return None
    return sum(1 for _ in read_lines(source))
