"""Files that grow line by line and survive a kill of their writer."""

import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from spct_jax import distributed, errors


def complete_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file from its start; an incomplete last line, left by a killed writer, is cut off when it is reached."""
    end = 0
    file.seek(0)
    for text in file:
        if not text.endswith(b"\n"):
            file.truncate(end)
            return
        yield text
        end += len(text)


class Appended:
    """A file of JSON lines that grows; an incomplete last line, left by a killed writer, is cut off when it is opened.

    Of several processes only the first writes.

    Attributes:
      lines: how many complete lines there were when it was opened.
    """

    def __init__(self, path: str | os.PathLike):
        """Opens or creates the file."""
        first, self._path = distributed.is_first(), path
        self._file = open(path if first else os.devnull, "a+b")
        self.lines = distributed.agree(sum(1 for _ in complete_lines(self._file)) if first else 0)

    def write(self, record: Any) -> None:
        """Appends one line."""
        with errors.naming(self._path):
            self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            self._file.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with errors.naming(self._path):
            self._file.close()
