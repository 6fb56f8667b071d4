"""How long the devices had nothing to do, as the host can tell.

Whoever gives them work that takes long says so to `CLOCK`: before, and with a result of it afterwards. A thread waits for that
result and notes when it was there. From then until work is given again the devices of this process are idle. What nobody tells
the clock of, such as copies, counts as idle.
"""

import functools
import time
from concurrent import futures
from typing import Any

import jax


class IdleClock:
    """Seconds in which the devices were idle, between the first work given and the last."""

    def __init__(self):
        self.seconds = 0.0
        self._ended: futures.Future[float] | None = None

    @functools.cached_property
    def _watcher(self) -> futures.Executor:
        return futures.ThreadPoolExecutor(1, "idle clock")

    def giving(self) -> None:
        """The devices are about to be given work."""
        if self._ended is not None and self._ended.done():
            self.seconds += time.perf_counter() - self._ended.result()
        self._ended = None

    def gave(self, result: Any) -> None:
        """They have been given work, of which `result` is there last; no program may take over its memory."""
        self._ended = self._watcher.submit(_wait, result)


def _wait(result: Any) -> float:
    jax.block_until_ready(result)
    return time.perf_counter()


CLOCK = IdleClock()
