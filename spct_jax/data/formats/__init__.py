"""Formats of files with rows, one a file, and `open_rows`, which finds the right one."""

import os
import pathlib
import tempfile

from spct_jax.data import rows
from spct_jax.data.formats import json_array, json_lines, parquet, tfds
from spct_jax.data.rows import Rows
from spct_jax.errors import InputError
from spct_jax.storage.paths import of as to_path

_SUFFIXES = {
    (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"): "jsonl",
    (".json", ".json.gz"): "json",
    (".parquet",): "parquet",
}
"""Ends of file names, and the format that each says."""
FORMATS = ("jsonl", "json", "parquet", "tfds")


def open_rows(
    place: str, format: str = "", *, directory: str | os.PathLike | None = None, name: str = "rows", data_dir: str = ""
) -> Rows:
    """The rows of files of one format, in the order of the files' names.

    Args:
        place: a path, in which `*`, `**`, `?` and `[..]` stand for many; for tfds, NAME[/CONFIG]:SPLIT.
        format: one of `FORMATS`; nothing: what the end of the file's name says.
        directory: keeps what is found out about the files (where their lines begin; their content, unpacked, where a format
            has no random access), for as long as they do not change. All processes must then call this. Without it, a
            directory that is removed at the end is used, and every process works for itself.
        name: what the files that are kept are called.
        data_dir: where prepared tfds datasets lie; nothing: where tfds looks.

    Raises:
        InputError: no file, one that cannot be read as a whole, or formats that differ.
    """
    if format == "tfds":
        return tfds.open_dataset(place, data_dir)
    paths = rows.expand(place)
    format = format or _format_of(paths)
    if format == "json":
        return _joined([json_array.open_file(path) for path in paths], paths)
    opener = {"jsonl": json_lines.open_files, "parquet": parquet.open_files}[format]
    if directory is not None:
        return opener(paths, to_path(directory), name, shared=True)
    scratch = tempfile.TemporaryDirectory(prefix="spct_jax_rows_")
    opened = opener(paths, pathlib.Path(scratch.name), name, shared=False)
    opened.scratch = scratch  # removed when nobody holds the rows any more
    return opened


def named_by(path: str) -> str:
    """The format that the end of a file's name says; nothing where it says none."""
    return next((name for ends, name in _SUFFIXES.items() if path.endswith(ends)), "")


def _joined(parts: list[Rows], paths: list[str]) -> Rows:
    return parts[0] if len(parts) == 1 else rows.Joined(parts, rows.short_names(paths))


def _format_of(paths: list[str]) -> str:
    found = {path: named_by(path) for path in paths}
    first = paths[0]
    for path, format in found.items():
        if not format and not to_path(path).exists():
            raise InputError(f"{path}: no such file or directory")
        if not format:
            raise InputError(f"{path}: not a kind of file that is known by its name ({', '.join(sum(_SUFFIXES, ()))})")
        if format != found[first]:
            raise InputError(f"{path}: files of one source must have one format, and {first} is {found[first]}")
    return found[first]
