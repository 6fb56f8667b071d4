"""Prepared datasets of tensorflow-datasets in ArrayRecord files, read by name, without TensorFlow or the code of the builder.

A dataset whose only feature is `record` holds JSON text, one row each: what `python -m spct_jax.data build` writes.
"""

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spct_jax.data import kept
from spct_jax.data.jsonl import parse_line
from spct_jax.data.rows import Rows
from spct_jax.errors import InputError, one_line
from spct_jax.storage import local_copies
from spct_jax.storage.paths import is_remote

AHEAD = 256
"""Rows that are read at once where they are asked for one after the other."""


def open_dataset(place: str, data_dir: str = "") -> Rows:
    """The rows of NAME[/CONFIG]:SPLIT; a split may be a slice, such as `train[:10%]`.

    Raises:
        InputError: there is no such dataset, configuration or split, or its files are not whole ArrayRecord files.
    """
    builder, split = _find(place, data_dir)
    try:
        format = builder.info.file_format
        if format is None or format.value != "array_record":
            raise InputError(f"tfds:{place}: stored as {format and format.value}, but only array_record can be read")
        source = builder.as_data_source(split=split)
        expected = builder.info.splits[split].num_examples
        if len(source) != expected:
            raise InputError(f"tfds:{place}: holds {len(source)} rows, but its description says {expected}")
        if expected:
            source[0]
    except InputError:
        raise
    except (ValueError, OSError, RuntimeError, AssertionError) as error:
        raise InputError(f"tfds:{place}: {one_line(error)}") from None
    return Tfds(place, source, builder.info.features, kept.stamp_of(_files(builder)))


def paths(place: str, data_dir: str = "") -> list[pathlib.Path]:
    """The files of a prepared dataset; InputError if there is none."""
    return _files(_find(place, data_dir)[0])


def _find(place: str, data_dir: str) -> tuple[Any, str]:
    """(the builder of a prepared dataset, the name of the split)."""
    from tensorflow_datasets.core import read_only_builder  # half a second, which only those who need it pay

    name, _, split = place.partition(":")
    if not name or not split:
        raise InputError(f"tfds:{place}: must be tfds:NAME[/CONFIG]:SPLIT")
    if is_remote(data_dir):  # rows of ArrayRecord files are read from a disk only
        data_dir = str(local_copies.of_directory(f"{data_dir}/{name}").parents[name.count("/")])
    try:
        return read_only_builder.builder_from_files(name, data_dir=data_dir or None), split
    except (ValueError, OSError, RuntimeError, AssertionError) as error:
        raise InputError(f"tfds:{place}: {one_line(error)}") from None


def _files(builder: Any) -> list[pathlib.Path]:
    return sorted(path for path in pathlib.Path(os.fspath(builder.info.data_dir)).iterdir() if path.is_file())


class Tfds(Rows):
    """Rows of a split."""

    def __init__(self, place: str, source: Any, features: Any, stamp: str):
        """Of a data source of tfds with these features."""
        from tensorflow_datasets.proto import tf_example_pb2

        self._place, self._source, self._features, self.stamp = place, source.data_source, features, stamp
        self._is_json = [*features] == ["record"]
        self._parse = tf_example_pb2.Example.FromString
        self._next, self._ahead = -1, (0, ())  # the row after the last one; (number of the first, rows) read ahead

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        where = self.where(index)
        try:
            stored = self._stored(index)
            if self._is_json:  # decoded without tfds, which takes several times as long
                return parse_line(self._parse(stored).features.feature["record"].bytes_list.value[0], where)
            return _plain(self._features.deserialize_example_np(stored), self._features)
        except InputError:
            raise
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: not UTF-8 (byte {error.start + 1})") from None
        except (ValueError, OSError, RuntimeError) as error:
            raise InputError(f"{where}: cannot be read ({one_line(error)})") from None

    def _stored(self, index: int) -> bytes:
        """A row as it is stored; ArrayRecord goes through its index for every call, so rows in succession are read together."""
        first, rows = self._ahead
        if not first <= index < first + len(rows) and index == self._next:
            first, rows = index, self._read_ahead(index)
            self._ahead = first, rows
        self._next = index + 1
        return rows[index - first] if first <= index < first + len(rows) else self._source[index]

    def _read_ahead(self, first: int) -> Sequence[bytes]:
        """The rows from this one on; none where one of them cannot be read, so that each is then read by itself."""
        try:
            return self._source.__getitems__(range(first, min(first + AHEAD, len(self))))
        except (ValueError, OSError, RuntimeError):
            return ()

    def where(self, index: int) -> str:
        """'tfds:NAME:SPLIT: row number', from 1."""
        return f"tfds:{self._place}: row {index + 1}"

    def default_id(self, index: int) -> str:
        """The number of the row, from 1."""
        return str(index + 1)

    def check_columns(self, needed: Iterable[str]) -> None:
        """InputError naming the dataset and the first feature that it does not have; rows of JSON text have no features."""
        if not self._is_json and (missing := [column for column in needed if column not in self._features]):
            raise InputError(f"tfds:{self._place}: no column {missing[0]!r} (it has {', '.join(self._features)})")


def _plain(value: Any, feature: Any) -> Any:
    """Texts, numbers, lists and dicts from what tfds reads: bytes, arrays, numbers of classes, dicts of lists."""
    inner = getattr(feature, "feature", None)
    if hasattr(inner, "keys"):  # tfds turns a list of dicts inside out
        length = len(next(iter(value.values())))
        return [_plain({key: value[key][i] for key in inner}, inner) for i in range(length)]
    if inner is not None:
        return [_plain(item, inner) for item in value]
    if hasattr(feature, "keys"):
        return {key: _plain(value[key], feature[key]) for key in feature}
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(feature, "int2str"):
        return feature.int2str(int(value)) if int(value) >= 0 else None
    return value.tolist() if hasattr(value, "tolist") else value
