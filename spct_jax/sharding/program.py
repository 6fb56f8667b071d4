"""Jitted functions with explicit shardings, one per layout and shapes."""

import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import numpy as np

from spct_jax.sharding.layout import Layout

WAITED = "/spct_jax/compile/waited"
"""JAX's monitoring hears under this name how long a call waited for a program that another thread compiles."""


class Program:
    """A jitted function with explicit shardings of arguments and results, compiled once per layout and shapes.

    Arguments are positional, everything static is a keyword. Without a layout the function runs where its arguments are.
    """

    def __init__(
        self,
        function: Callable,
        takes: tuple[str, ...],
        gives: Callable[..., Any],
        donate: tuple[int, ...] = (),
    ):
        """Wraps `function`.

        Args:
          function: `function(*arguments, **static)`, pure.
          takes: for each argument what it is: `params`, `state`, `batch` (methods of `Layout`) or `replicated`.
          gives: called with the layout, the arguments and the static values by name; returns the shardings of the results,
            or of whole branches of their tree.
          donate: arguments whose memory the results may take.
        """
        self._function, self._takes, self._gives, self._donate = function, takes, gives, donate
        self._jitted: dict[Any, Callable] = {}
        self._ahead: dict[Any, futures.Future] = {}
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, layout: Layout | None = None, **static: Any) -> Any:
        """Calls the function."""
        key = self._key(args, layout, static)
        ahead = self._ahead.get(key)
        if ahead is None or ahead.cancelled():
            return self._program(key, args, layout, static)(*args)
        return _waited_for(ahead)(*args)

    def compile_ahead(self, pool: futures.Executor, *args: Any, layout: Layout, **static: Any) -> bool:
        """Has it compiled in `pool` for arguments of these shapes and dtypes, unless it is already; whether it was not.

        A call with such arguments waits for it.
        """
        key = self._key(args, layout, static)
        if key in self._jitted:
            return False
        program = self._program(key, args, layout, static)
        self._ahead[key] = pool.submit(lambda: program.lower(*args).compile())
        return True

    def lower(self, *args: Any, layout: Layout | None = None, **static: Any) -> jax.stages.Lowered:
        """Lowers it for arguments of which shapes and dtypes are enough."""
        return self._program(self._key(args, layout, static), args, layout, static).lower(*args)

    def _key(self, args: tuple, layout: Layout | None, static: dict[str, Any]) -> Any:
        leaves, structure = jax.tree.flatten(args)
        shapes = None if layout is None else (structure, *((np.shape(x), getattr(x, "dtype", None)) for x in leaves))
        return layout, tuple(sorted(static.items())), shapes

    def _program(self, key: Any, args: tuple, layout: Layout | None, static: dict[str, Any]) -> Callable:
        if key not in self._jitted:
            self._jitted[key] = self._make(args, layout, static)
        return self._jitted[key]

    def _make(self, args: tuple, layout: Layout | None, static: dict[str, Any]) -> Callable:
        if layout is None:
            return jax.jit(lambda *args: self._function(*args, **static), donate_argnums=self._donate)
        given = tuple(
            jax.tree.map(lambda _: layout.replicated, arg) if role == "replicated" else getattr(layout, role)(arg)
            for role, arg in zip(self._takes, args, strict=True)
        )

        def traced(*args):
            with layout.constraints():
                return self._function(*args, **static)

        traced.__name__ = self._function.__name__
        results = self._gives(layout, *args, **static)
        return jax.jit(traced, in_shardings=given, out_shardings=results, donate_argnums=self._donate)


def _waited_for(ahead: futures.Future) -> Callable:
    """A program that is compiled in another thread; the time that this one waits for it counts as its compiling."""
    if not ahead.done():
        start = time.perf_counter()
        futures.wait([ahead])
        jax.monitoring.record_event_duration_secs(WAITED, time.perf_counter() - start)
    return ahead.result()
