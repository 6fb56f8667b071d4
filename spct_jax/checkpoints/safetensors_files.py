"""Safetensors files of a directory: tensors read one at a time, and written file by file."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
import tqdm

from spct_jax.checkpoints.families import Family
from spct_jax.errors import InputError
from spct_jax.storage import files, local_copies, paths
from spct_jax.storage.paths import Path

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
DTYPES = tuple(_DTYPES.values())
WHOLE = "model.safetensors"
INDEX = f"{WHOLE}.index.json"


class Shards:
    """The tensors of a directory of safetensors files, by name without prefix; reads one at a time.

    Attributes:
      directory: the directory.
      shapes: of every tensor.

    Raises:
      InputError: no file, an unreadable or missing one, or two tensors of one name.
    """

    def __init__(self, directory: str | os.PathLike, family: Family):
        self.directory = paths.of(directory)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._family = family
        self._where: dict[str, tuple[Path, str]] = {}
        self._dtypes: dict[str, str] = {}
        for path in _list_files(self.directory):
            with _opened(path) as file:
                for full in file.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                    name = self._without_prefix(full)
                    if name in self._where:
                        raise InputError(f"{path}: tensor {full} is also in {self._where[name][0].name}")
                    about = file.get_slice(full)
                    self._where[name] = path, full
                    self.shapes[name] = tuple(about.get_shape())
                    self._dtypes[name] = about.get_dtype()

    def _without_prefix(self, name: str) -> str:
        prefixes = () if name.startswith(self._family.ignored) else self._family.prefixes
        return name.removeprefix(next((prefix for prefix in prefixes if name.startswith(prefix)), ""))

    def read(self, name: str) -> np.ndarray:
        """One tensor; nothing of its file stays mapped."""
        path, full = self._where[name]
        with _opened(path) as file:
            return file.get_tensor(full)

    def check(self, expected: Mapping[str, tuple[int, ...]], ignored: tuple[str, ...] = ()) -> None:
        """Raises InputError naming the first tensor that is unexpected, missing, misshapen or of a strange dtype.

        Args:
          expected: names and shapes.
          ignored: how the names of tensors begin that are passed over, besides those that the family passes over.
        """
        for name in sorted(self.shapes.keys() | expected.keys()):
            if name not in self.shapes:
                raise InputError(f"{self.directory}: tensor {name} is missing")
            if name.startswith((*self._family.ignored, *ignored)) or name.endswith("rotary_emb.inv_freq"):
                continue
            path, full = self._where[name]
            if name not in expected:
                raise InputError(f"{path}: tensor {full} is not part of this model")
            if self.shapes[name] != expected[name]:
                raise InputError(f"{path}: tensor {full} is {self.shapes[name]}, {expected[name]} by config.json")
            if self._dtypes[name] not in _DTYPES:
                raise InputError(f"{path}: tensor {full} is {self._dtypes[name]}; {', '.join(_DTYPES)} are supported")

    def widest_dtype(self, names: Iterable[str]) -> str:
        """The dtype that holds all of these tensors without loss."""
        found = {_DTYPES[self._dtypes[name]] for name in names}
        return found.pop() if len(found) == 1 else "float32"


def _list_files(directory: Path) -> list[Path]:
    """The files that transformers would read: one that holds all counts before an index, which may be of an earlier save."""
    index = directory / INDEX
    if files.is_there(directory / WHOLE):
        found = [WHOLE]
    elif files.is_there(index):
        names = files.read_json(index).get("weight_map")
        if not isinstance(names, dict):
            raise InputError(f"{index}: has no weight_map")
        for tensor, name in names.items():
            if not isinstance(name, str):
                raise InputError(f"{index}: weight_map has {name!r} for {tensor}, which is no file name")
        found = sorted(set(names.values()))
    else:
        found = [path.name for path in files.matching(directory, "*.safetensors")]
    shards = [files.contained(directory, name) for name in found]
    if not shards:
        raise InputError(f"{directory}: holds no *.safetensors file")
    return shards


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safetensors.safe_open]:
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a regular file")
    try:
        with safetensors.safe_open(local_copies.of_file(path), "np") as file:
            yield file
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None


class ToWrite(NamedTuple):
    """A tensor to be written."""

    name: str
    """With its prefix."""
    size: int
    """Bytes."""
    make: Callable[[], np.ndarray]
    """Makes the array, when its file is written."""


def write(directory: pathlib.Path, tensors: list[ToWrite], shard_bytes: int, description: str) -> None:
    """Writes tensors into as few files as `shard_bytes` allows, in their order, with an index if there are several files.

    Args:
      directory: a scratch directory.
      tensors: what to write; the tensors of one file exist at once.
      shard_bytes: upper size of one file (a single tensor may be bigger).
      description: of the progress bar.
    """
    plan: list[list[ToWrite]] = []
    room = 0
    for tensor in tensors:
        if not plan or tensor.size > room:
            plan.append([])
            room = shard_bytes
        plan[-1].append(tensor)
        room -= tensor.size
    weight_map = {}
    with tqdm.tqdm(desc=description, total=len(tensors), unit="tensor", mininterval=1) as bar:
        for number, members in enumerate(plan, start=1):
            name = WHOLE if len(plan) == 1 else f"model-{number:05d}-of-{len(plan):05d}.safetensors"
            arrays = {}
            for tensor in members:
                arrays[tensor.name] = np.ascontiguousarray(tensor.make())
                weight_map[tensor.name] = name
                bar.update()
            safetensors.numpy.save_file(arrays, directory / name, metadata={"format": "pt"})
    if len(plan) > 1:
        index = {"metadata": {"total_size": sum(tensor.size for tensor in tensors)}, "weight_map": weight_map}
        files.write_json(directory / INDEX, index)
