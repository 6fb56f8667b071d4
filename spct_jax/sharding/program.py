"""Jitted functions with explicit shardings, one per layout and shapes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from spct_jax.sharding.layout import Layout


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
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, layout: Layout | None = None, **static: Any) -> Any:
        """Calls the function."""
        return self._program(self._key(args, layout, static), args, layout, static)(*args)

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
