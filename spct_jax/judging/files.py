"""A file of comparisons into a file of verdicts: line N of the output answers line N of the input, whatever is on it.

Lines are written in order as they come, so an output cut anywhere is the start of the complete one. `resume` reads it and the
input side by side, drops a last line that is not complete, and the run goes on from there.

Several processes each judge a share of the lines, and the first one joins the shares in the output: see `shares`.
"""

import collections
import contextlib
import functools
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tqdm

from spct_jax import errors
from spct_jax.data.comparison import Comparison
from spct_jax.data.jsonl import OnBad, check_lines, read_lines
from spct_jax.errors import InputError
from spct_jax.judging import resume, verdicts
from spct_jax.judging.input_lines import BLANK, STREAM, Line, read_input
from spct_jax.judging.shares import Shares, Spans, deal
from spct_jax.judging.verdicts import Summary
from spct_jax.rounding import ceil_div
from spct_jax.runtime import distributed
from spct_jax.storage import append_only, locks, paths

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
      load: gives the `judge.Judge`; not called when there is nothing left to score.
      options: keyword arguments of `Judge.stream`.
      settings: what verdicts depend on. Kept beside the output, which is resumed under the same ones only.
      on_bad: 'skip' writes an error record in place of a verdict; 'fatal' stops there.

    Of several processes, all call this, and all find the output whole when it returns; only the first one's summary says
    anything.

    Raises:
      InputError: a bad line when they are fatal, a file that cannot be read or written, or an output that is not the
        start of this one. What has been written stays.
    """
    shares = Shares(target)
    if distributed.several() or shares.exist():
        return _judge_shares(source, target, shares, load, options, settings, on_bad)
    summary, lines, total = Summary(), read_input(source), _count_lines(source)
    with _opened(target) as file:
        done = _go_on(file, source, target, lines, settings, summary)
        if (following := next(lines, None)) is None:
            return summary
        _check(following, on_bad)  # before a model is loaded for nothing
        judge = load()
        if resume.is_resumable(target):
            if done:
                resume.check_digests(target, judge.digests)
            memory = resume.memory_for(target, options, judge.memory, bool(done))
            resume.write_settings(target, settings, judge.digests, memory)
            options = {**options, "memory": memory} if memory else options
        outcomes = _outcomes(judge, itertools.chain([following], lines), options, on_bad)
        for line, record in tqdm.tqdm(outcomes, "judging", total, initial=done, unit="comparison", mininterval=1):
            _write(file, record)
            _tally(summary, line, record)
    return summary


def _go_on(
    file: append_only.Lines,
    source: str,
    target: str,
    lines: Iterator[Line],
    settings: Mapping[str, Any],
    summary: Summary,
    begun: bool = False,
) -> int:
    """Takes the lines from the input that the output answers already; says how many. `begun`: whether there is more."""
    done = 0
    if resume.is_resumable(target):
        if begun or not append_only.is_empty(target):
            resume.check_settings(target, settings)
        for line, record in resume.answered(file, source, target, lines):
            _tally(summary, line, record)
            done += 1
    return done


def _judge_shares(
    source: str,
    target: str,
    shares: Shares,
    load: Callable[[], Any],
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
    on_bad: OnBad,
) -> Summary:
    """As `judge_file`, by several processes, or after such a run; a verdict does not depend on who gives it."""
    for flag, path in (("--input", source), ("--output", target)):
        if path == STREAM or (paths.of(path).exists() and not paths.of(path).is_file()):
            raise InputError(f"{flag}={path}: several processes need a file that all of them see")
    summary, index_and_count = Summary(), distributed.process_index_and_count()
    file: append_only.Lines
    with contextlib.ExitStack() as stack:

        def begin() -> tuple[int, Spans, bool]:
            nonlocal file
            file, lines, begun = stack.enter_context(_opened(target)), read_input(source), shares.any()
            done = _go_on(file, source, target, lines, settings, summary, begun)
            return done, shares.settle(source, lines, done), begun or bool(done)

        def keep_settings(digests: Mapping[str, str], there: int) -> int:
            if begun:
                resume.check_digests(target, digests)
            memory = resume.memory_for(target, options, there, begun)
            resume.write_settings(target, settings, digests, memory)
            return memory

        def join() -> None:
            for line, record in shares.join(itertools.islice(read_input(source), done, None), done):
                _write(file, record)
                _tally(summary, line, record)
            file.sync()
            shares.remove()
            stack.close()  # in a bucket the output is one object only then

        done, left, begun = distributed.from_first(begin)
        if left:
            judge = load()
            memory = distributed.from_first(functools.partial(keep_settings, judge.digests, judge.memory))
            options = {**options, "memory": memory} if memory else options
            _judge_share(source, left, shares, judge, options, on_bad, index_and_count)
            distributed.barrier("all shares are judged")
        distributed.from_first(join)
    return summary


def _judge_share(
    source: str,
    left: Spans,
    shares: Shares,
    judge: Any,
    options: Mapping[str, Any],
    on_bad: OnBad,
    index_and_count: tuple[int, int],
) -> None:
    """Judges the lines dealt to this process; where the model is split over all, all judge every line, and the first writes."""
    index, count = index_and_count if judge.is_local else (0, 1)
    lines = _count_lines(source) if distributed.is_first() else 0
    total = sum(min(last, lines) - first + 1 for first, last in left)
    outcomes = _outcomes(judge, deal(read_input(source), left, index, count), options, on_bad)
    bar = tqdm.tqdm(
        outcomes,
        "judging" if count == 1 else f"judging, process 1 of {count}",
        ceil_div(total, count),
        unit="comparison",
        mininterval=1,
        disable=not distributed.is_first(),
    )
    with shares.writer(index) if judge.is_local or distributed.is_first() else contextlib.nullcontext() as share:
        for line, record in bar:
            if share is not None:
                share.write(line.number, record)


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
            _check(line, on_bad)
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


def _check(line: Line, on_bad: OnBad) -> None:
    """InputError where a line is bad and nothing may be."""
    if line.bad and on_bad == "fatal":
        raise InputError(f"{line.where}: {line.error}")


def _write(file: append_only.Lines, record: Mapping[str, Any]) -> None:
    file.write(json.dumps(record, allow_nan=False).encode() + b"\n")


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
    return sum(1 for _ in check_lines(read_lines(source), source))
