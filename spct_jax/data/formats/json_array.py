"""A file that is one JSON value: an array of rows, an object of arrays, or an object of rows. It is read as a whole.

Some publish JSON Lines under the name .json; that is read, too.
"""

import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any

from spct_jax.data import kept
from spct_jax.data.jsonl import not_json, without_repeats
from spct_jax.data.rows import Rows
from spct_jax.errors import InputError
from spct_jax.storage import local_copies


def open_file(path: str) -> Rows:
    """The rows of a .json or .json.gz file.

    Of an array, its items. Of an object whose values are arrays of objects, or objects, the items of all of them; each gets the
    field `key`, under which it or its array stood. Of an object whose values are other arrays, of one length: the columns of
    a table.

    Raises:
        InputError: it cannot be read, or is none of these.
    """
    stamp = kept.stamp_of([path])
    try:
        local = local_copies.of_file(path)
        with gzip.open(local) if path.endswith(".gz") else open(local, "rb") as file:
            text = file.read().decode("utf-8-sig")
        return JsonArray(path, _rows(_parse(text)), stamp)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged or truncated gzip data ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read the file ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start + 1})") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: {not_json(error)}") from None
    except (InputError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None


class JsonArray(Rows):
    """Rows that are in memory."""

    def __init__(self, path: str, rows: list[Any], stamp: str):
        """Of a file."""
        self._path, self._rows, self.stamp = path, rows, stamp

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        row = self._rows[index]
        if not isinstance(row, Mapping):
            raise InputError(f"{self.where(index)}: not a JSON object ({type(row).__name__})")
        return row

    def where(self, index: int) -> str:
        """'file: row number', from 1."""
        return f"{self._path}: row {index + 1}"

    def default_id(self, index: int) -> str:
        """The number of the row, from 1."""
        return str(index + 1)


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=without_repeats)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or not text.lstrip().startswith("{"):
            raise
    # A value ends and something follows it: JSON Lines. Here its errors are those of the file.
    lines = text.split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                rows.append(json.loads(line, object_pairs_hook=without_repeats))
        except json.JSONDecodeError as error:
            raise InputError(f"line {number}: {not_json(error)}") from None
    return rows


def _rows(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise InputError(f"neither an array nor an object ({type(value).__name__})")
    values = value.values()
    if all(isinstance(item, dict) for item in values):
        return [{"key": key} | item for key, item in value.items()]
    if all(isinstance(item, list) and all(isinstance(row, dict) for row in item) for item in values):
        return [{"key": key} | row for key, rows in value.items() for row in rows]
    if all(isinstance(item, list) for item in values) and len({*map(len, values)}) == 1:
        return [dict(zip(value, row, strict=True)) for row in zip(*values, strict=True)]
    raise InputError("an object, but not of arrays of rows, of rows or of columns of one length")
