"""What a step costs: seconds, with compilation counted apart, the roofline fraction, and a profiler trace of chosen steps."""

import tempfile
import threading
import time
from collections.abc import Callable

import jax

from spct_jax.runtime import compiling, hardware, memory
from spct_jax.sharding import Layout
from spct_jax.storage import files
from spct_jax.storage.paths import Path, is_remote


class CompileClock:
    """Seconds the main thread has spent tracing and compiling, or waiting for threads that do."""

    def __init__(self):
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration: float, **_) -> None:
        in_main = threading.current_thread() is threading.main_thread()
        if event == compiling.WAITED or (in_main and event.startswith("/jax/core/compile/")):
            self.seconds += duration


CLOCK = CompileClock()


class Stopwatch:
    """Seconds of a stage and the part spent compiling, accumulated over restarts."""

    def __init__(self, earlier: dict[str, float] | None = None):
        earlier = earlier or {}
        self._seconds, self._compile = earlier.get("seconds", 0.0), earlier.get("compile_seconds", 0.0)
        self._start, self._compile_start = time.perf_counter(), CLOCK.seconds

    def read(self) -> dict[str, float]:
        """{"seconds", "compile_seconds"} so far."""
        return {
            "seconds": self._seconds + time.perf_counter() - self._start,
            "compile_seconds": self._compile + CLOCK.seconds - self._compile_start,
        }


def speed(amount: float, before: dict[str, float], after: dict[str, float]) -> float:
    """`amount` (of tokens, say) per second between two results of `Stopwatch.read`, without the time spent compiling."""
    busy = (after["seconds"] - before["seconds"]) - (after["compile_seconds"] - before["compile_seconds"])
    return amount / max(busy, 1e-9)


def cost(tokens: float, roofline: float, before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What a step of `tokens` tokens cost; `roofline` is its minimum time in seconds, 0 where that is not known."""
    fraction = {"roofline_fraction": speed(roofline, before, after)} if roofline else {}
    return {"tokens_per_second": speed(tokens, before, after), **fraction, **memory.of_devices()}


def roofline_seconds(layout: Layout, flops: float, read: float = 0.0) -> float:
    """The minimum time of a program on the devices of `layout` at their published peaks; 0 where those are not known.

    Args:
      layout: where it runs.
      flops: floating-point operations, on all devices together (`models.flops`).
      read: bytes that a device must read from its memory.
    """
    device = hardware.device_of(layout.mesh.devices.flat[0].device_kind)
    return max(flops / layout.mesh.size / device.flops, read / device.hbm_bandwidth) if device else 0.0


class Profiler:
    """A trace of the steps [start, stop) of a stage, for TensorBoard or Perfetto; a context around a stage's loop.

    Args:
      directory: where the trace goes.
      steps: (start, stop); no trace where they are equal.
    """

    def __init__(self, directory: Path, steps: tuple[int, int]):
        self._directory, (self._start, self._stop), self._tracing = directory, steps, False

    def before(self, step: int, finish: Callable[[], None]) -> None:
        """Starts the trace if `step` is one of them, and ends it if `step` is after the last of them.

        First it calls `finish`, which waits until the devices have done what they were given for the steps before.
        """
        wanted = self._start <= step < self._stop
        if wanted != self._tracing:
            finish()
            self._begin() if wanted else self._end()

    def _begin(self) -> None:
        self._tracing = True
        self._place = tempfile.TemporaryDirectory() if is_remote(self._directory) else None
        # A hook on every Python call, in every thread, would slow down the host that is being traced.
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        jax.profiler.start_trace(self._place.name if self._place else self._directory, profiler_options=options)

    def _end(self) -> None:
        self._tracing = False
        jax.profiler.stop_trace()
        if self._place:
            files.put_directory(self._place.name, self._directory)
            self._place.cleanup()

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *exception) -> None:
        if self._tracing:
            self._end()
