"""Principles apart from critiques: read from a file, to judge by, and taken out of verdicts, to be used again.

A file of principles is a text, for all comparisons, or JSON lines, {"id": ..., "principles": text or null}, for each its own.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spct_jax.data.comparison import given_id
from spct_jax.data.jsonl import read_jsonl, write_jsonl
from spct_jax.errors import InputError
from spct_jax.grm import parse
from spct_jax.storage import files

BY_ID = (".jsonl", ".jsonl.gz")
"""Ends of the names of files with principles by id."""
LARGEST = 1 << 20
"""Bytes of a text of principles."""


def read(path: str | os.PathLike) -> str | dict[str, str]:
    """The principles in a file: of all comparisons, or by id in one whose name ends in .jsonl or .jsonl.gz.

    Raises:
      InputError: the file cannot be read, is empty, or a line of it is not as above; it names the line. Or it is a text that is
        JSON, so that it was meant to hold principles by id.
    """
    if not str(path).endswith(BY_ID):
        try:
            text = files.read_bytes(path, LARGEST).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 (byte {error.start + 1})") from None
        if not text.strip():
            raise InputError(f"{path}: holds no principles")
        if _holds_objects(text):
            raise InputError(f"{path}: JSON, but principles by id are JSON Lines in a file that ends in {' or '.join(BY_ID)}")
        return text
    found: dict[str, str] = {}
    for number, record in read_jsonl(path):
        try:
            id, text = given_id(record), record.get("principles")
            if id is None:
                raise InputError("missing field 'id'")
            if not isinstance(text, str | None):
                raise InputError(f"principles is not a string ({type(text).__name__})")
            if str(id) in found:
                raise InputError(f"duplicate id ({str(id)!r})")
            if "principles" not in record:
                raise InputError("missing field 'principles'")
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        if text and text.strip():
            found[str(id)] = text
    return found


def _holds_objects(text: str) -> bool:
    """Whether a text begins with a JSON object or an array of some."""
    try:
        value, _ = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def export(verdicts: str | os.PathLike, target: str | os.PathLike, parts: Sequence[str]) -> int:
    """Writes the principles of every verdict in a file, as `read` takes them; returns of how many there are none.

    Beside the comparison's `principles`, those of the critique that the meta RM rates best, or else of the first that has some,
    each line holds those of all `samples`.

    Args:
      verdicts: the output of the judge command.
      target: the file to write.
      parts: labels of the parts of a critique.
    """
    without = 0

    def lines() -> Iterator[dict[str, Any]]:
        nonlocal without
        for _, record in read_jsonl(verdicts):
            if "error" not in record:
                line = _line(record, parts)
                without += line["principles"] is None
                yield line

    write_jsonl(target, lines())
    return without


def _line(record: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    found = [parse.principles(sample["text"], parts) for sample in record["samples"]]
    rewards = [float("-inf") if sample["meta"] is None else sample["meta"] for sample in record["samples"]]
    some = [s for s, text in enumerate(found) if text is not None]
    best = max(some, key=rewards.__getitem__, default=None)
    return {"id": record["id"], "principles": None if best is None else found[best], "samples": found}
