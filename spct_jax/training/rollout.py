"""Rollouts as files."""

import os
import pathlib
from collections.abc import Iterable

import numpy as np

from spct_jax import distributed
from spct_jax.data.jsonl import read_jsonl, write_jsonl
from spct_jax.errors import InputError
from spct_jax.grm.prompts import Rollout


def write(path: str | os.PathLike, rollouts: Iterable[Rollout]) -> None:
    """Writes rollouts as JSON lines, all or nothing; of several processes the first does."""
    if not distributed.is_first():
        return
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, (vars(r) | {"completions": [tokens.tolist() for tokens in r.completions]} for r in rollouts))


def read(path: str | os.PathLike) -> list[Rollout]:
    """Reads what `write` wrote, all but the texts.

    Raises:
      InputError: naming file and line, where it is something else.
    """

    def tuples(value):
        return tuple(tuples(v) for v in value) if isinstance(value, list) else value

    read = []
    for line, record in read_jsonl(path):
        try:
            completions = tuple(np.array(tokens, np.int32) for tokens in record.pop("completions"))
            fields = {name: tuples(value) for name, value in record.items()}
            read.append(Rollout(**fields | {"completions": completions, "texts": None}))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InputError(f"{path}:{line}: not a rollout as this version writes them") from None
    return read
