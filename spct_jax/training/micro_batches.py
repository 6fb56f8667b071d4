"""Batches that are computed one micro-batch at a time, a program each, in a loop that a signal can interrupt.

Micro-batch m of `count` has rows m, m + count, .. of the batch, so that rows stay on the device that has them.
"""

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Int

from spct_jax import distributed, idle
from spct_jax.sampling.engine_programs import WAITED
from spct_jax.sharding import Layout, logical
from spct_jax.training import buckets
from spct_jax.training.buckets import Bucket

Found = TypeVar("Found")


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
    """Compiles programs beside each other; calls with arguments like those that they were lowered for find them compiled.

    Raises:
      distributed.StoppedError: SIGTERM or SIGINT came, if it is `stoppable`; looked for before each program.
    """
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        compiling = []
        try:
            for part in parts:
                if stoppable:
                    distributed.PREEMPTION.check()
                compiling.append(pool.submit(part.program.compile))
            start = time.perf_counter()
            for one in compiling:
                one.result()
                if stoppable:
                    distributed.PREEMPTION.check()
            jax.monitoring.record_event_duration_secs(WAITED, time.perf_counter() - start)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def take(rows: Any, index: Int[ArrayLike, ""], count: int, bucket: Bucket) -> Any:
    """The rows of micro-batch `index` of `count`, to be computed at a bucket; for use in programs."""
    if count > 1:
        rows = logical.constrain_batch(jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:])[:, index], rows))
    return buckets.at(rows, bucket)


def join(parts: Sequence[Any], sharding: jax.sharding.Sharding) -> Any:
    """Trees of arrays, one of each micro-batch, as one tree with the rows of the batch."""
    return parts[0] if len(parts) == 1 else jax.jit(_join, out_shardings=sharding)(parts)


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


class MicroBatched:
    """A function of rows, computed one micro-batch at a time: `(params, batch, *given) -> the function of all rows`."""

    def __init__(self, layout: Layout, params: Any, function: Callable):
        """Makes it of `function(params, rows, *given)`, which is traced with the layout's constraints and returns a tree of
        arrays with rows first. Of `params` only the shapes matter; programs are compiled at the first call.
        """

        def compute(params, rows, given, index, count, bucket):
            with layout.constraints():
                return function(params, take(rows, index, count, bucket), *given)

        self._rows, same = layout.sharding("batch"), layout.replicated
        shardings = (layout.params(params), self._rows, same, same)
        self._program = jax.jit(compute, static_argnums=(4, 5), in_shardings=shardings, out_shardings=self._rows)
        self._compiled = False

    def __call__(self, params: Any, batch: Batch, *given: Any) -> Any:
        """What the function returns for all rows.

        Raises:
          distributed.StoppedError: SIGTERM or SIGINT came.
        """
        if not self._compiled:
            compile_all(self.lower(params, batch, *given))
            self._compiled = True

        def compute(_, index):
            return self._program(params, batch.rows, given, index, len(batch.buckets), batch.buckets[index])

        return join(list(in_turn(compute, [batch])), self._rows)

    def lower(self, params: Any, batch: Batch, *given: Any) -> Iterator[Part]:
        """Yields its programs for arguments of these shapes, concrete or abstract."""
        for bucket, times in occurrences(batch):
            yield Part(self._program.lower(params, batch.rows, given, 0, len(batch.buckets), bucket), times, 0)
