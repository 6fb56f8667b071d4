"""Files of events, which TensorBoard shows."""

import pathlib
import socket
import tempfile
import time

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from spct_jax.storage import files, paths
from spct_jax.storage.paths import Path


class TensorBoard:
    """TensorBoard's events; if a step was written twice, TensorBoard shows its last values."""

    def __init__(self, directory: Path, resume_step: int):
        files.make_directory(directory)
        self._directory = directory
        self._begin()
        self._add(Event(step=resume_step, session_log=SessionLog(status=SessionLog.START)))

    def _begin(self) -> None:
        """Opens a file of events. Those of a bucket are written on this disk, and put there whole by `flush`."""
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
        self._scratch = tempfile.TemporaryDirectory() if paths.is_remote(self._directory) else None
        self._file = pathlib.Path(self._scratch.name if self._scratch else self._directory, name)
        # Not tensorboardX's SummaryWriter: if its thread dies, from a full disk or a clock set back, callers wait for ever.
        self._writer = RecordWriter(str(self._file))
        self._add(Event(file_version="brain.Event:2"))

    def write(self, step: int, values: dict[str, float]) -> None:
        """As in `MetricWriter`."""
        for name, value in values.items():
            self._add(Event(step=step, summary=scalar(name, value)))

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())

    def flush(self) -> None:
        """As in `MetricWriter`."""
        self._writer.flush()
        if self._scratch:
            self._put()
            self._begin()

    def close(self) -> None:
        """As in `MetricWriter`."""
        self._writer.close()
        if self._scratch:
            self._put()

    def _put(self) -> None:
        self._writer.close()
        files.write(self._directory / self._file.name, self._file.read_bytes())
        self._scratch.cleanup()
