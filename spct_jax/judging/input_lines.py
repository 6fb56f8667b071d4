"""The lines of a judge's input: comparisons, and what is wrong with the other lines."""

import dataclasses
import hashlib
import sys
from collections.abc import Iterator
from typing import Any

from spct_jax.data.comparison import CONDITIONS, Comparison, from_json, given_id
from spct_jax.data.jsonl import check_lines, is_blank, next_line, parse_line, read_lines
from spct_jax.errors import InputError

STREAM = "-"
"""Stands for standard input or output."""
LONGEST = 4_000_000
"""Characters in a comparison; no context holds that many, and a tokenizer would take long to find that out."""
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
        """The record that the output holds where there is no verdict."""
        return {"id": self.id, "line": self.number, "error": error, "digest": self.digest}


def read_input(source: str) -> Iterator[Line]:
    """The lines of a .jsonl or .jsonl.gz file or of standard input; bad ones carry their error.

    Raises:
      InputError: the file cannot be read, or holds something else than JSON Lines.
    """
    name = "<stdin>" if source == STREAM else source
    lines = enumerate(iter(lambda: next_line(sys.stdin.buffer), b""), 1) if source == STREAM else read_lines(source)
    lines = check_lines(lines, name)
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


def find(source: str, wanted: str) -> Line:
    """The line with that id or, where no comparison has it, with that number; of lines that share an id, a good one first.

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


def _read_line(text: bytes, where: str, number: int) -> Line:
    digest = hashlib.blake2b(text.strip(), digest_size=8).hexdigest()
    if is_blank(text):
        return Line(where, number, None, None, BLANK, digest)
    id, named = None, False
    try:
        record = parse_line(text, where)
        given = record.get("id")
        id, named = (number, False) if given is None else (given_id(record), True)
        conditions = {field: record[field] for field in CONDITIONS if record.get(field) is not None}
        comparison = dataclasses.replace(from_json(record, where, number), **conditions)
        if comparison.characters > LONGEST:
            raise InputError(f"longer than any context ({comparison.characters:,} characters)")
        return Line(where, number, id, comparison, None, comparison.digest, named)
    except InputError as error:
        return Line(where, number, id, None, str(error).removeprefix(f"{where}: "), digest, named)
