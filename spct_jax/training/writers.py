"""Where a stage's metrics go: one JSON line a step for our reports, and TensorBoard scalars for people watching."""

import json
import math
import os
import pathlib
from collections.abc import Mapping

import tensorboardX

from spct_jax import files
from spct_jax.errors import InputError


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """The objects of a file of JSON lines, in order.

    A last line cut short by a killed run (no newline at its end, not JSON) is left out.

    Raises:
      InputError: naming file and line, if any other line is not a JSON object.
    """
    rows = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                if not line.endswith("\n"):
                    break
                raise InputError(f"{path}:{number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
            rows.append(row)
    return rows


class MetricWriter:
    """Writes a stage's scalars to `directory/metrics.jsonl` and `directory/tensorboard`.

    A run resumed at `resume_step` computes that step and later ones again, so what an earlier life of the run wrote for
    them is dropped: the files end as if the run had never been killed. Lines reach the operating system as they are
    written, so they survive a kill of the process; TensorBoard's are buffered until `flush`.

    Args:
      directory: the stage's directory; made if absent.
      resume_step: the first step this run will write. 0 starts over.
    """

    def __init__(self, directory: str | os.PathLike, resume_step: int = 0):
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "metrics.jsonl"
        kept = [row for row in read_metrics(path) if row["step"] < resume_step] if path.exists() else []
        files.write(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = open(path, "a", buffering=1, encoding="utf-8")
        self._board = tensorboardX.SummaryWriter(str(directory / "tensorboard"), purge_step=resume_step)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Records one step. A value that is not finite becomes null in the JSON, which has no word for it."""
        values = {name: float(value) for name, value in scalars.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": int(step), **finite}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, int(step))

    def flush(self) -> None:
        """Puts everything written so far on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._board.flush()

    def close(self) -> None:
        """Flushes and closes both files."""
        self.flush()
        self._file.close()
        self._board.close()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *exception) -> None:
        self.close()
