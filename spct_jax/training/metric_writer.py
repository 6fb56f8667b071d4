"""Where a stage's metrics go: one JSON line a step for the reports, and TensorBoard scalars for people who watch."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from spct_jax.data.jsonl import read_jsonl
from spct_jax.errors import InputError
from spct_jax.storage import append_only, files, paths
from spct_jax.storage.paths import Path


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """The steps in a file of metrics, in order: `step` and a number, or None, for each metric.

    A last line that a killed run cut short is left out.

    Raises:
      InputError: naming file and line, if any other line is no such object; or the file, if it cannot be read.
    """
    found = []
    for number, record in read_jsonl(path, growing=True):
        if type(record.get("step")) is not int or not {type(value) for value in record.values()} <= {int, float, type(None)}:
            raise InputError(f"{path}:{number}: not the metrics of a step")
        found.append(record)
    return found


class MetricWriter:
    """Writes a stage's scalars to `directory/metrics.jsonl` and `directory/tensorboard`.

    A run resumed at `resume_step` computes that step and later ones again, so what the run wrote for them before it was
    interrupted is dropped: the files end as if the run had never been killed. Lines reach the operating system as they are
    written, so they survive a kill of the process; TensorBoard's are buffered until `flush`.

    Metrics never stop a run: if a file cannot be written, or an earlier one cannot be read, standard error says so once and the
    run goes on without that file; only a bucket that is out of reach ends it, as it would at the next checkpoint. Everything is
    written in the calling thread, not in one that could die unnoticed.

    Args:
      directory: the stage's directory; made if absent.
      resume_step: the first step this run will write. 0 starts over.
    """

    def __init__(self, directory: str | os.PathLike, resume_step: int = 0):
        directory = paths.of(directory)
        self._sinks = [
            _Sink(directory / "metrics.jsonl", JsonLines, resume_step),
            _Sink(directory / "tensorboard", _tensorboard, resume_step),
        ]

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Records one step. A value that is not finite becomes null in the JSON, which cannot express it."""
        values = {name: float(value) for name, value in scalars.items()}
        for sink in self._sinks:
            sink.call("write", int(step), values)

    def flush(self) -> None:
        """Puts everything written so far on disk."""
        for sink in self._sinks:
            sink.call("flush")

    def close(self) -> None:
        """Flushes and closes both files."""
        for sink in self._sinks:
            sink.call("close")

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


class _Sink:
    """A writer that is abandoned at its first error, with a line on standard error."""

    def __init__(self, path: Path, make: Callable[[Path, int], Any], resume_step: int):
        self._path, self._made = path, None
        self._made = self._guarded(make, path, resume_step)

    def call(self, method: str, *arguments: Any) -> None:
        if self._made is not None:
            self._guarded(getattr(self._made, method), *arguments)

    def _guarded(self, work: Callable, *arguments: Any) -> Any:
        try:
            return work(*arguments)
        except (OSError, InputError, ImportError) as error:
            broken, self._made = self._made, None
            reason = getattr(error, "strerror", None) or error
            print(f"{self._path}: cannot be written ({reason}); the run goes on without it", file=sys.stderr)
            if broken is not None:
                with contextlib.suppress(OSError):  # what is left in a buffer
                    broken.close()
            return None


class JsonLines:
    """JSON lines; those of steps before `resume_step` are kept."""

    def __init__(self, path: Path, resume_step: int):
        files.make_directory(path.parent)
        kept = [row for row in read_metrics(path) if row["step"] < resume_step] if append_only.exists(path) else []
        append_only.rewrite(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = append_only.opened(path)

    def write(self, step: int, values: dict[str, float]) -> None:
        """As in `MetricWriter`."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write((json.dumps({"step": step, **finite}) + "\n").encode())

    def flush(self) -> None:
        """As in `MetricWriter`."""
        self._file.sync()

    def close(self) -> None:
        """As in `MetricWriter`."""
        self._file.close()


def _tensorboard(directory: Path, resume_step: int) -> Any:
    from spct_jax.training.event_files import TensorBoard  # with tensorboardX, which only those who write events need

    return TensorBoard(directory, resume_step)
