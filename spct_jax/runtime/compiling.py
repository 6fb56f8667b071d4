"""How programs are compiled: with which options, and in threads while the caller does something else."""

from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax

WAITED = "/spct_jax/compile/waited"
"""Name of the JAX monitoring event that reports the seconds a caller waited while such a thread compiled its program."""


def options(platform: str) -> dict[str, str] | None:
    """Compiler options of programs that take gradients, for a platform as JAX names it; None for the compiler's own choice.

    XLA's CPU backend orders operations so that many can run beside each other: it begins by clearing the sums of all gradients,
    and computes all layers of a block again before the backward pass of the last one. In an order for memory an update of
    Gemma-3 270M takes 5.65 GB instead of 6.41, and computes the same numbers (docs/results/speed.md).
    """
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"} if platform == "cpu" else None


def threads(count: int) -> futures.Executor:
    """So many threads; for CPUs none where compiled programs are kept: whoever submits something does it at once.

    A process has died of a segmentation fault while a thread of it read such a program for XLA's CPU backend and the main
    thread traced another. Why is not known.
    """
    if jax.config.jax_compilation_cache_dir and jax.default_backend() == "cpu":
        return _AtOnce()
    return futures.ThreadPoolExecutor(count)


class _AtOnce(futures.Executor):
    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> futures.Future:
        done = futures.Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # raised where the result is asked for
            done.set_exception(error)
        return done
