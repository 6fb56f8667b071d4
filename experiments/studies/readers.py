"""Reads human preference pairs as hh-rlhf has them: {"chosen", "rejected"}, transcripts that differ in the last answer.

A transcript is a text of turns, each opened by a blank line and `Human:` or `Assistant:`. The two are split at the last
`Assistant:` they have in common: what stands before it is the conversation, what follows are the two responses.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.jsonl import OnBad, ReadReport, read_jsonl
from spct_jax.errors import InputError

_ANSWER = "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class _UnusableError(Exception):
    """A pair in the right format that cannot be judged; the message is the reason."""


def read_pairs(path: str | os.PathLike, on_bad: OnBad = "fatal") -> tuple[list[Comparison], ReadReport]:
    """The pairs of a file, or of all .jsonl and .jsonl.gz files under a folder, as comparisons scored 1 and 0.

    The preferred response comes first or second by a hash of the record's id, which is its file and line. A pair that
    cannot be judged (equal or empty responses, several turns in one, turns that do not alternate) is left out and
    counted.

    Args:
        path: the file or folder.
        on_bad: what a malformed line does: 'fatal' raises, 'skip' leaves it out and counts it.

    Raises:
        InputError: naming file and line of a malformed pair; or the path, when nothing there can be used.
    """
    path, comparisons, report = Path(path), [], ReadReport()
    for file in _files(path):
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        for line, record in read_jsonl(file, on_bad, report):
            try:
                comparisons.append(pair(record, f"{name}:{line}"))
            except _UnusableError as error:
                report.skip(str(error))
            except InputError as error:
                if on_bad == "fatal":
                    raise InputError(f"{file}:{line}: {error}") from None
                report.skip(str(error))
    report.used = len(comparisons)
    if not comparisons:
        raise InputError(f"{path}: holds no pair that can be used ({dict(report.skipped) or 'it is empty'})")
    return comparisons, report


def pair(record: Mapping[str, Any], identifier: str) -> Comparison:
    """One record as a comparison; raises InputError when it is malformed."""
    chosen, rejected = (_transcript(record, key) for key in ("chosen", "rejected"))
    split = os.path.commonprefix([chosen, rejected]).rfind(_ANSWER)
    if split < 0:
        raise InputError("the transcripts have no turn of the assistant in common")
    responses = [text[split + len(_ANSWER) :].strip() for text in (chosen, rejected)]
    turns = _turns(chosen[:split])
    if not all(responses):
        raise _UnusableError("empty response")
    if responses[0] == responses[1]:
        raise _UnusableError("identical responses")
    if any(_TURN.search(response) for response in responses):
        raise _UnusableError("several turns in one response")
    if [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise _UnusableError("turns do not alternate")
    if not all(turn.content for turn in turns):
        raise _UnusableError("empty turn")
    first = stable_hash("place", identifier) % 2
    order = (first, 1 - first)
    return Comparison(
        id=identifier,
        conversation=turns,
        responses=tuple(responses[i] for i in order),
        scores=tuple(float(i == 0) for i in order),
    )


def stable_hash(*parts: str) -> int:
    """A number that depends on the parts alone, the same on every machine; other first parts give independent ones."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()[:8], "big")


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.name.endswith((".jsonl", ".jsonl.gz")))
    if not files:
        raise InputError(f"{path}: no .jsonl or .jsonl.gz file in this folder")
    return files


def _transcript(record: Mapping[str, Any], key: str) -> str:
    if key not in record:
        raise InputError(f"missing field {key!r}")
    if not isinstance(record[key], str):
        raise InputError(f"{key} is not a string ({type(record[key]).__name__})")
    if not record[key].startswith("\n\nHuman:"):
        raise InputError(f"{key} does not open with a blank line and 'Human:'")
    return record[key]


def _turns(text: str) -> tuple[Turn, ...]:
    _, *parts = _TURN.split(text)
    return tuple(Turn(_ROLES[name], said.strip()) for name, said in zip(parts[::2], parts[1::2], strict=True))
