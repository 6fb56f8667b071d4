"""What several processes judge of one file: each writes a share of the lines, and the first process joins them in order.

Line number r of those that are left, counted from 0, is in the share of process r mod (number of processes). A share is
`<output>.shares/<process>.jsonl`: for each line judged {"number": of the input's line, "record": as of the output}. When a run
begins, on however many processes, what earlier ones have left there is checked against the input and moved into one file,
`kept.jsonl`; only lines that neither it nor the output answers are dealt.
"""

import heapq
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from spct_jax.data.jsonl import parse_line
from spct_jax.errors import InputError
from spct_jax.judging import resume
from spct_jax.judging.input_lines import Line
from spct_jax.storage import append_only, files, paths
from spct_jax.storage.paths import Path

KEPT = "kept.jsonl"
END = sys.maxsize
"""Stands for the last line of an input that has not been read to its end."""

Spans = Sequence[tuple[int, int]]
"""(first, last) numbers of lines that follow one another; the spans ascend."""


class Answer(NamedTuple):
    """A line of a share."""

    number: int
    """Of the line of the input."""
    record: dict[str, Any]
    where: str
    """'file:number', for messages."""


def deal(lines: Iterable[Line], left: Spans, index: int, count: int) -> Iterator[Line]:
    """The lines that are the share of process `index` of `count`, out of those that are left."""
    spans, rank = iter(left), 0
    first, last = next(spans, (END, END))
    for line in lines:
        while line.number > last:
            first, last = next(spans, (END, END))
        if line.number >= first:
            if rank % count == index:
                yield line
            rank += 1


class Shares:
    """The shares of an output; only the first process may call anything but `writer`."""

    def __init__(self, target: str):
        """Those of the output `target`, none of which need be there."""
        self._target, self._directory = target, paths.of(f"{target}.shares")

    def exist(self) -> bool:
        """Whether there are any."""
        return bool(self._files())

    def any(self) -> bool:
        """Whether they hold anything."""
        return next(self._answers(0), None) is not None

    def settle(self, source: str, lines: Iterator[Line], done: int) -> Spans:
        """Checks what is there and moves it into one file; says which lines are left.

        Args:
          source: the input, for messages.
          lines: the input's lines after the first `done`.
          done: how many lines the output answers.

        Raises:
          InputError: a record answers another input.
        """
        left, following = [], done + 1
        files.make_directory(self._directory)
        shares = self._files()
        with files.replacing(self._directory / KEPT) as kept:
            for answer in self._answers(done):
                line = next(itertools.islice(lines, answer.number - following, None), None)
                if line is None:
                    raise InputError(f"{answer.where}: {source} has no line {answer.number}; is this of another input?")
                resume.check_record(answer.record, answer.where, line)
                kept.write(_encoded(answer.number, answer.record))
                if answer.number > following:
                    left.append((following, answer.number - 1))
                following = answer.number + 1
        for path in shares:
            if path.name != KEPT:
                append_only.remove(path)
        return [*left, (following, END)] if next(lines, None) is not None else left

    def writer(self, index: int) -> "Share":
        """The share of process `index`, to be written."""
        return Share(self._directory / f"{index:05d}.jsonl")

    def join(self, lines: Iterator[Line], done: int) -> Iterator[tuple[Line, dict[str, Any]]]:
        """All lines after the first `done`, in order, each with its record.

        Raises:
          RuntimeError: a line was judged by no process.
        """
        answers = self._answers(done)
        for line in lines:
            answer = next(answers, None)
            if answer is None or answer.number != line.number:
                raise RuntimeError(f"{line.where}: in no share of {self._directory}")
            resume.check_record(answer.record, answer.where, line)
            yield line, answer.record

    def remove(self) -> None:
        """Removes all of them; what they held is in the output."""
        for path in self._files():
            append_only.remove(path)
        if not paths.is_remote(self._directory):
            self._directory.rmdir()

    def _files(self) -> list[Path]:
        names = {path.name.removesuffix(".parts") for path in files.matching(self._directory, "*.jsonl*")}
        return [self._directory / name for name in sorted(names) if name.endswith(".jsonl")]

    def _answers(self, done: int) -> Iterator[Answer]:
        """What they hold of lines after the first `done`, in order, each line once."""
        merged = heapq.merge(*map(_read, self._files()), key=lambda answer: answer.number)
        for number, answers in itertools.groupby(merged, lambda answer: answer.number):
            if number > done:
                yield next(answers)


class Share:
    """A share being written."""

    def __init__(self, path: Path):
        """Makes the file."""
        self._file = append_only.opened(path)

    def write(self, number: int, record: dict[str, Any]) -> None:
        """Adds the record of a line of the input."""
        self._file.write(_encoded(number, record))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.__exit__(*exception)


def _encoded(number: int, record: dict[str, Any]) -> bytes:
    return json.dumps({"number": number, "record": record}, allow_nan=False).encode() + b"\n"


def _read(path: Path) -> Iterator[Answer]:
    """The lines of a share, without an incomplete last one, left by a killed process."""
    with append_only.reading(path) as file:
        for count, text in enumerate(file, 1):
            if not text.endswith(b"\n"):
                return
            where = f"{path}:{count}"
            record = parse_line(text, where)
            if not isinstance(record.get("number"), int) or not isinstance(record.get("record"), dict):
                raise InputError(f"{where}: not a line of a share")
            yield Answer(record["number"], record["record"], where)
