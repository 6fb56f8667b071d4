"""Threads in which programs are compiled while the caller does something else."""

from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax

WAITED = "/spct_jax/compile/waited"
"""Name of the JAX monitoring event that reports the seconds a caller waited while such a thread compiled its program."""


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
