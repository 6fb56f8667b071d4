"""A file of comparisons into a file of verdicts: line N of the output answers line N of the input, whatever is on it.

Lines are written in order as they come, so an output cut anywhere is the start of the complete one. `resume` reads it and the
input side by side, drops a last line that is not complete, and the run goes on from there.
"""

import collections
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tqdm

from spct_jax import append_only, errors, locks, paths
from spct_jax.data.comparison import Comparison
from spct_jax.data.jsonl import OnBad, read_lines
from spct_jax.errors import InputError
from spct_jax.judging import resume, verdicts
from spct_jax.judging.input_lines import BLANK, STREAM, Line, read_input
from spct_jax.judging.verdicts import Summary

MOST_WAITING = 100_000
"""Lines read ahead of what is written, so that a run of bad lines behind a slow comparison stays out of memory."""


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
        resumable, done = resume.is_resumable(target), 0
        if resumable:
            resume.check_settings(target, settings)
            for line, record in resume.answered(file, source, target, lines):
                _tally(summary, line, record)
                done += 1
        if (following := next(lines, None)) is None:
            return summary
        judge = load()
        if resumable:
            if done:
                resume.check_digests(target, judge.digests)
            resume.write_settings(target, settings, judge.digests)
        outcomes = _outcomes(judge, itertools.chain([following], lines), options, on_bad)
        for line, record in tqdm.tqdm(outcomes, "judging", total, initial=done, unit="comparison", mininterval=1):
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            _tally(summary, line, record)
    return summary


def _outcomes(
    judge: Any, lines: Iterable[Line], options: Mapping[str, Any], on_bad: OnBad
) -> Iterator[tuple[Line, dict[str, Any]]]:
    """The record of each line, in order: the judge's verdicts, and between them the errors of bad lines."""
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

    # Where no more lines may be read until those that wait are written, the stream ends, and another one begins.
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


@contextlib.contextmanager
def _opened(target: str) -> Iterator[append_only.Lines]:
    """The output, to read from its start and to write at its end."""
    if target == STREAM:
        with errors.naming("standard output"):
            yield append_only.Stream(sys.stdout.buffer)
        return
    if target.endswith(".gz"):
        raise InputError(f"{target}: the output cannot be compressed, since an interrupted run goes on in it")
    busy = f"{target}: another run is writing it"
    if paths.is_remote(target):
        with locks.leased(paths.of(f"{target}.lock"), busy), append_only.opened(target) as lines:
            yield lines
        return
    try:
        # A device or a pipe is written as it is; only what was there before is ever read back.
        plain = not os.path.exists(target) or resume.is_resumable(target)
        lines = append_only.opened(target) if plain else append_only.Stream(open(target, "wb"))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror})") from None
    with errors.naming(target), lines:
        locks.lock(lines.file, busy)
        yield lines


def _count_lines(source: str) -> int | None:
    """How many lines there are; None where they can be read only once."""
    if source == STREAM or (paths.of(source).exists() and not paths.of(source).is_file()):
        return None
    return sum(1 for _ in read_lines(source))
