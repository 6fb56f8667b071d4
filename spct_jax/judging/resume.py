"""Where an interrupted judge run resumes: after the records that its output holds already, each checked against the input.

`<output>.settings.json`, next to the output, keeps what its verdicts depend on; a run resumes under the same settings only.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from spct_jax.data.jsonl import parse_line, read_lines
from spct_jax.errors import InputError
from spct_jax.judging.input_lines import STREAM, Line
from spct_jax.sampling import engine_size
from spct_jax.storage import append_only, files, paths
from spct_jax.storage.paths import Path


def is_resumable(target: str) -> bool:
    """Whether an output is a regular file or in a bucket; pipes and devices are written from their start."""
    return target != STREAM and (paths.is_remote(target) or paths.of(target).is_file())


DEVICE_MEMORY = "device_memory"
"""Name, among the settings, of the bytes of a device that shapes were chosen for; absent where `batch_size` says them."""


def memory_for(target: str, options: Mapping[str, Any], there: int, begun: bool) -> int:
    """Bytes of a device that shapes are chosen for: those that a begun output was begun with, else those there are.

    0 where nothing is chosen. InputError where there are fewer than the output was begun with.
    """
    if options.get("batch_size") or not there:
        return 0
    path = _settings_path(target)
    try:
        return engine_size.memory_for(there, files.read_json(path).get(DEVICE_MEMORY, 0) if begun else 0, "--batch_size")
    except InputError as error:
        raise InputError(f"{target}: {error}") from None


def check_settings(target: str, settings: Mapping[str, Any]) -> None:
    """InputError if an output that has been begun was written under other settings, or not by this command."""
    path = _settings_path(target)
    if not path.exists():
        raise InputError(f"{target}: not an output to go on with ({path} is missing); choose another --output")
    found, wanted = files.read_json(path), json.loads(json.dumps(settings))
    for name in ("digests", DEVICE_MEMORY):
        found.pop(name, None)
    for name in sorted(found.keys() | wanted.keys()):
        begun, now = found.get(name), wanted.get(name)
        if begun != now:
            how = f"with --{name}={begun}, not {'without it' if now is None else now}"
            how = f"without --{name}={now}" if begun is None else how
            raise InputError(f"{target}: begun {how}; choose another --output")


def check_digests(target: str, digests: Mapping[str, str]) -> None:
    """InputError if what was loaded is not what the output was begun with, though its names are the same."""
    settings = files.read_json(_settings_path(target))
    found = settings.get("digests")
    for name in sorted(digests):
        if not isinstance(found, dict) or found.get(name) != digests[name]:
            what = "text" if name in ("template", "meta_template") else "parameters, tokenizer or templates"
            named = "" if settings.get(name) is None else f"={settings[name]}"
            changed = f"--{name}{named} has other {what} than the output was begun with"
            raise InputError(f"{target}: {changed}; choose another --output")


def write_settings(target: str, settings: Mapping[str, Any], digests: Mapping[str, str], memory: int = 0) -> None:
    """Keeps what an output's verdicts depend on: the flags, digests of what was loaded, and as of `memory_for`."""
    chosen_for = {DEVICE_MEMORY: memory} if memory else {}
    files.write_json(_settings_path(target), {**settings, **chosen_for, "digests": digests})


def answered(file: append_only.Lines, source: str, target: str, lines: Iterator[Line]) -> Iterator[tuple[Line, dict[str, Any]]]:
    """The input's lines that an output answers already, each with its record; an incomplete last record is cut off.

    Raises:
      InputError: a record answers another input.
    """
    for number, text in enumerate(file.read(), 1):
        line = next(lines, None)
        if line is None:
            raise InputError(f"{target}:{number}: {source} has no such line; is this the output of another input?")
        yield line, _answer(text, target, line)


def find_record(target: str, line: Line) -> dict[str, Any] | None:
    """What an output says of a line of its input, or None if it does not go that far."""
    if not append_only.exists(target):
        return None
    text = next((text for number, text in read_lines(target, sys.maxsize - 1) if number == line.number), b"")
    if not text.endswith(b"\n"):
        return None
    return _answer(text, target, line)


def _answer(text: bytes, target: str, line: Line) -> dict[str, Any]:
    """The record on a line of the output; InputError unless it belongs to that line of the input."""
    where = f"{target}:{line.number}"
    record = parse_line(text, where)
    check_record(record, where, line)
    return record


def check_record(record: Mapping[str, Any], where: str, line: Line) -> None:
    """InputError, '<where>: ...', unless a record answers this line of the input."""
    failed = isinstance(record.get("error"), str)
    if record.get("id") == line.id and (record.get("line") == line.number if failed else _is_verdict(record, line)):
        if record.get("digest") == line.digest:
            return
        raise InputError(f"{where}: answers other texts than those that {line.where} holds now; choose another --output")
    found = f"an error record ({record['error']})" if failed else f"a verdict on {record.get('id')!r}"
    wanted = f"a bad line ({line.error})" if line.comparison is None else f"{line.id!r} with {line.comparison.n} responses"
    raise InputError(f"{where}: {found}, but {line.where} is {wanted}; is this the output of another input?")


def _is_verdict(record: Mapping[str, Any], line: Line) -> bool:
    scores, samples, *counts = (record.get(field) for field in ("scores", "samples", "valid", "truncated"))
    complete = all(isinstance(n, int) for n in counts) and isinstance(record.get("tied"), list)
    complete = complete and isinstance(samples, list) and isinstance(scores, list | None)
    return complete and line.comparison is not None and (scores is None or len(scores) == line.comparison.n)


def _settings_path(target: str) -> Path:
    return paths.of(f"{target}.settings.json")
