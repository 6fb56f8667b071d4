"""Batches that are computed one micro-batch at a time, a program each, in a loop that a signal can interrupt.

Micro-batch m of `count` has rows m, m + count, .. of the batch, so that rows stay on the device that has them.
"""

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Int

from spct_jax.runtime import compiling, distributed, idle, memory
from spct_jax.sharding import Layout, logical
from spct_jax.training import buckets
from spct_jax.training.buckets import Bucket

Found = TypeVar("Found")

Share = Callable[[Any], Any]
"""`share(params)`: a tree of arrays that is the same for all rows and is computed once for all micro-batches, in the layout
that `Layout.batch` gives it; None for nothing."""


def share_nothing(params: Any) -> None:
    """The `Share` of what computes all that it needs for each row."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows of one shape, in micro-batches."""

    rows: Any
    """A tree of arrays with B as first axis."""
    buckets: Sequence[Bucket]
    """The shape that each micro-batch is computed at; how many there are divides B."""
    table: Sequence[Bucket] = ()
    """Shapes that micro-batches of other steps are computed at. They are compiled for at the first step, too, so that no later
    one waits for the compiler."""


class Part(NamedTuple):
    """One program of what is computed in micro-batches."""

    program: jax.stages.Lowered
    times: int
    """How often it is called; 0 if only other steps need it."""
    beside: int
    """Bytes per device of arguments of the whole that are held meanwhile and are no arguments of this program."""


def occurrences(batch: Batch) -> Iterator[tuple[Bucket, int]]:
    """(bucket, how many micro-batches are computed at it) of every bucket that a batch may have."""
    counts = Counter(batch.buckets)
    for bucket in dict.fromkeys((*batch.buckets, *batch.table)):
        yield bucket, counts[bucket]


def compile_all(parts: Iterable[Part], stoppable: bool = True) -> None:
    """Compiles programs, beside each other if `compiling.threads` are there; calls like theirs find them compiled.

    Raises:
      distributed.StoppedError: SIGTERM or SIGINT came, if it is `stoppable`; looked for before each program.
    """
    with compiling.threads(os.cpu_count() or 1) as pool:
        begun = []
        try:
            for part in parts:
                if stoppable:
                    distributed.PREEMPTION.check()
                begun.append(pool.submit(part.program.compile))
            start = time.perf_counter()
            for one in begun:
                one.result()
                if stoppable:
                    distributed.PREEMPTION.check()
            jax.monitoring.record_event_duration_secs(compiling.WAITED, time.perf_counter() - start)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    memory.give_back()  # what only the compiler needed


def shapes_of(*arguments: Any) -> Hashable:
    """What programs are compiled for: the structure of trees of arrays, and the shape and dtype of every array."""
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


def take(rows: Any, index: Int[ArrayLike, ""], count: int, bucket: Bucket) -> Any:
    """The rows of micro-batch `index` of `count`, to be computed at a bucket; for use in programs."""
    if count > 1:
        rows = logical.constrain_batch(jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:])[:, index], rows))
    return buckets.at(rows, bucket)


def join(parts: Sequence[Any], sharding: jax.sharding.Sharding) -> Any:
    """Trees of arrays, one of each micro-batch, as one tree with the rows of the batch."""
    return parts[0] if len(parts) == 1 or not jax.tree.leaves(parts) else jax.jit(_join, out_shardings=sharding)(parts)


def _join(parts: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x, 1).reshape(-1, *x[0].shape[1:]), *parts)


def in_turn(compute: Callable[[int, int], Found], batches: Sequence[Batch], stoppable: bool = True) -> Iterator[Found]:
    """Yields `compute(number of the batch, index)`, arrays that are still being computed, of every micro-batch in order.

    One micro-batch is computed and one waits behind it; no more is begun. So what is looked for before each of them, a signal
    to stop, is seen after two more at most, and the devices need not wait for the host.

    Args:
      compute: begins to compute a micro-batch. No program may take over the memory of what it returns.
      batches: what is computed, one after the other.
      stoppable: whether to look for a signal.

    Raises:
      distributed.StoppedError: SIGTERM or SIGINT came.
    """
    before = None
    for number, batch in enumerate(batches):
        for index in range(len(batch.buckets)):
            # Asked before the micro-batch is begun: devices answer in the order in which they are asked.
            told = distributed.PREEMPTION.look() if stoppable else None
            idle.CLOCK.giving()
            found = compute(number, index)
            idle.CLOCK.gave(found)
            jax.block_until_ready(before)
            if told is not None and told():
                raise distributed.StoppedError
            yield found
            before = found


class Shared:
    """A `Share` as a program: `(params) -> what all micro-batches share`."""

    def __init__(self, layout: Layout, params: Any, share: Share):
        """Makes it for parameters of these shapes; `share` is traced with the layout's constraints."""

        def compute(params):
            with layout.constraints():
                return share(params)

        self.shapes = jax.eval_shape(compute, params)
        """Of what is shared."""
        self.shardings = layout.batch(self.shapes)
        """How it is split."""
        self._program = jax.jit(compute, in_shardings=(layout.params(params),), out_shardings=self.shardings)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is shared."""
        return not jax.tree.leaves(self.shapes)

    def __call__(self, params: Any) -> Any:
        """What all micro-batches share."""
        return self.shapes if self.is_empty else self._program(params)

    def lower(self, params: Any, beside: int) -> Iterator[Part]:
        """Yields its program, if there is one; `beside` as in `Part`."""
        if not self.is_empty:
            yield Part(self._program.lower(params), 1, beside)


class MicroBatched:
    """A function of rows, computed one micro-batch at a time: `(params, batch, *given) -> the function of all rows`."""

    def __init__(self, layout: Layout, params: Any, function: Callable, share: Share = share_nothing):
        """Makes it of `function(params, shared, rows, *given)`, which is traced with the layout's constraints and returns a
        tree of arrays with rows first. Of `params` only the shapes matter. Programs are compiled at the first call with
        arguments of their shapes and dtypes.
        """

        def compute(params, shared, rows, given, index, count, bucket):
            with layout.constraints():
                return function(params, shared, take(rows, index, count, bucket), *given)

        self._rows, same, self._shared = layout.sharding("batch"), layout.replicated, Shared(layout, params, share)
        shardings = (layout.params(params), self._shared.shardings, self._rows, same, same)
        self._program = jax.jit(compute, static_argnums=(5, 6), in_shardings=shardings, out_shardings=self._rows)
        self._compiled = set[Hashable]()

    def __call__(self, params: Any, batch: Batch, *given: Any) -> Any:
        """What the function returns for all rows.

        Raises:
          distributed.StoppedError: SIGTERM or SIGINT came.
        """
        shapes = shapes_of(params, batch.rows, given)
        if shapes not in self._compiled:
            compile_all(self.lower(params, batch, *given))
            self._compiled.add(shapes)

        shared = self._shared(params)

        def compute(_, index):
            return self._program(params, shared, batch.rows, given, index, len(batch.buckets), batch.buckets[index])

        return join(list(in_turn(compute, [batch])), self._rows)

    def lower(self, params: Any, batch: Batch, *given: Any) -> Iterator[Part]:
        """Yields its programs for arguments of these shapes, concrete or abstract."""
        yield from self._shared.lower(params, 0)
        for bucket, times in occurrences(batch):
            program = self._program.lower(params, self._shared.shapes, batch.rows, given, 0, len(batch.buckets), bucket)
            yield Part(program, times, 0)
