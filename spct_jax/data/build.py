"""Writes records as a dataset of tensorflow-datasets: ArrayRecord files, from which any record is read by itself.

Its one feature, `record`, is the JSON text of a record, so it needs no other version when a record gets another field. Shards
are written one after the other, and records stay in their order.
"""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tqdm

from spct_jax.data import duplicates, fingerprints
from spct_jax.data.comparison import Comparison, to_json
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.index import Records
from spct_jax.errors import InputError
from spct_jax.rounding import ceil_div
from spct_jax.storage import files
from spct_jax.storage.paths import Path

FORMAT = "array_record"
VERSION = "1.0.0"
DROPPED = "dropped.jsonl"
"""Beside the version: what was dropped as a copy or for a benchmark, see `fields.load`."""
PER_SHARD = 10_000
"""Records of a shard unless the number of shards is given. The time to read one at random grows with their number."""
_LOSSES = {
    "parquet": "tensorflow-datasets writes it but loses rows: of 14,543 it kept 1,600, and its description still said 14,543",
    "tfrecord": "needs TensorFlow, and no record of it can be read by itself",
}


def check_format(format: str) -> None:
    """Raises InputError, with the reason, unless it is `array_record`."""
    if format != FORMAT:
        raise InputError(f"--format={format}: {_LOSSES.get(format, 'not known here')}; use {FORMAT}")


def check_target(to: Path) -> None:
    """InputError where the directory exists already, or its name is no name of a dataset."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", to.name):
        raise InputError(f"{to}: {to.name!r} is no name of a dataset (small letters, digits and _ after a letter)")
    files.check_new(to)


def part(number: int) -> str:
    """Name of the split that holds what is for training of a mixture's source; the first has the number 0."""
    return f"train_{number + 1}"


def splits_of(records: Mapping[str, Records]) -> dict[str, Records]:
    """The splits of a dataset: those that hold anything, and in place of `train` one for each source, if it is a mixture.

    So no record is left out or doubled for the sake of weights, and a run that mixes the splits draws what it would have drawn
    from the sources. In evaluation weights do not count.
    """
    found = {name: some for name, some in records.items() if len(some)}
    if (train := found.get("train")) is None or train.shares is None:
        return found
    del found["train"]
    parts = {part(number): train[members] for number, members in enumerate(train.shares.members) if len(members)}
    return parts | found


def build(
    splits: Mapping[str, Records], to: Path, *, shards: int = 0, description: str = "", dropped: bytes = b""
) -> dict[str, int]:
    """Writes the splits into a new directory, whose name is that of the dataset; all of it, or nothing.

    Args:
        splits: name -> records, at least one.
        to: the directory; a reader finds the dataset by this directory's name in the one above it.
        shards: files of each split; 0: one for every `PER_SHARD` records.
        description: where the records come from.
        dropped: the list of what was not taken; becomes `DROPPED` in the directory unless it is empty.

    Returns:
        How many records of each split can be read back.

    Raises:
        InputError: the directory exists already or its name is no name of a dataset, a split is empty, or a record is bad.
    """
    check_target(to)
    if empty := [name for name, records in splits.items() if not len(records)]:
        raise InputError(f"{to}: the split {empty[0]!r} would be empty")
    with files.new_directory(to) as scratch:
        description = description.encode(errors="backslashreplace").decode()  # the name of a file may not be text
        with (
            contextlib.redirect_stdout(io.StringIO()),
            tqdm.tqdm(total=sum(map(len, splits.values())), unit="record", delay=2) as bar,
        ):
            builder = _builder(to.name, scratch, _shards(splits, shards, bar.update), description)
            builder.download_and_prepare(download_dir=scratch / "downloads")
        found = {name: _check(to, builder, name, records) for name, records in splits.items()}
        shutil.rmtree(scratch / "downloads", ignore_errors=True)
        (scratch / to.name / VERSION).rename(scratch / VERSION)
        shutil.rmtree(scratch / to.name)
        if dropped:
            (scratch / DROPPED).write_bytes(dropped)
    return found


def as_json(record: Comparison | Demonstration) -> dict[str, Any]:
    """The JSON object that is read back as the record."""
    if isinstance(record, Comparison):
        return to_json(record)
    turns = [{"role": turn.role, "content": turn.content} for turn in record.turns]
    return {"turns": turns, "completions": list(record.completions)}


def _shards(splits: Mapping[str, Records], shards: int, progress: Callable[[], Any]) -> dict[str, list[Callable]]:
    """Split -> for every shard a function that gives its (key, row) pairs."""

    def shard(records: Records, names: dict[int, str], begin: int, end: int) -> Callable[[], Iterator]:
        def rows():
            for number in range(begin, end):
                row = as_json(records[number])
                if number in names:
                    row["id"] = names[number]
                progress()
                yield number, {"record": _text(row)}

        return rows

    made = {}
    for name, records in splits.items():
        count = min(shards or ceil_div(len(records), PER_SHARD), len(records))
        ends, names = [len(records) * i // count for i in range(count + 1)], _new_names(records)
        made[name] = [shard(records, names, begin, end) for begin, end in zip(ends, ends[1:], strict=False)]
    return made


def _text(row: Mapping[str, Any]) -> str:
    """JSON that can be written as UTF-8: half a character, which `json` reads, stands in it as it stood in the source."""
    text = json.dumps(row, ensure_ascii=False)
    return json.dumps(row) if re.search("[\ud800-\udfff]", text) else text


def _new_names(records: Records) -> dict[int, str]:
    """Number -> id of the records whose id is an earlier one's: the number of a line may be the id of another."""
    if not isinstance(records[0], Comparison):
        return {}
    ids = np.fromiter((fingerprints.digest([record.id]) for record in records), np.int64, len(records))
    taken = np.flatnonzero(duplicates.first_of(ids) != np.arange(len(records)))
    return {int(number): f"{records[number].id} (record {number + 1})" for number in taken}


def _builder(name: str, directory: Path, shards: dict[str, list[Callable]], description: str) -> Any:
    import tensorflow_datasets  # half a second, which only those who need it pay

    class Builder(tensorflow_datasets.core.ShardBasedBuilder, skip_registration=True):
        VERSION = tensorflow_datasets.core.Version(VERSION)
        code_path = None  # tfds would look for checksums of downloads beside this file

        def _info(self):
            features = tensorflow_datasets.features.FeaturesDict({"record": tensorflow_datasets.features.Text()})
            return tensorflow_datasets.core.DatasetInfo(builder=self, description=description, features=features)

        def _shard_iterators_per_split(self, dl_manager):
            return shards

    Builder.name = name
    return Builder(data_dir=directory, file_format=FORMAT)


def _check(to: Path, builder: Any, split: str, records: Records) -> int:
    """How many records of a split can be read; InputError unless it is as many as were to be written, in their order."""
    source, said = builder.as_data_source(split=split), builder.info.splits[split].num_examples
    if not len(source) == said == len(records):
        raise InputError(
            f"{to}: {len(records)} records were written to {split}, {len(source)} can be read, {said} are described"
        )
    for number in {0, len(records) // 2, len(records) - 1}:
        row = json.loads(source[number]["record"])
        if row | {"id": ""} != as_json(records[number]) | {"id": ""}:
            raise InputError(f"{to}: record {number + 1} of {split} is not read back as it was written")
    return len(source)
