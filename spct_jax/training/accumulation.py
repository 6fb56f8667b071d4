"""The update of a stage: gradients of a loss, added up over micro-batches, and a step of the optimiser.

Where no batch is split, the update is one program, unless its batches have so many shapes that there would be many of these.
Otherwise each micro-batch is a program that adds its gradients to those before it, and a last program applies them; until that
one begins the state is untouched, and a signal can interrupt the step.
What is the same for all rows, such as the trunk of a preamble, is computed once a step. Its gradient, too, is added up over the
micro-batches, and then goes through it to the parameters.
"""

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from spct_jax.checkpoints import train_state
from spct_jax.checkpoints.train_state import TrainState
from spct_jax.runtime import compiling, idle
from spct_jax.sharding import Layout, bytes_per_device, logical
from spct_jax.training import metrics, micro_batches
from spct_jax.training.metrics import Mean, Metrics
from spct_jax.training.micro_batches import Batch, Part, Share, Shared, share_nothing

Loss = Callable[..., tuple[Float[Array, ""], tuple[Metrics, Any]]]
"""`loss(params, shared, rows, total, *given) -> (loss, (metrics, rest))` of some rows of a batch. Those of its micro-batches
add up to the loss of the batch, which is a mean over `total` things. `rest` is a tree of arrays with rows first, or None."""

Count = Callable[[Any], Float[Array, ""]]
"""`count(rows)`: over how many things, such as tokens, the loss of a batch of these rows is a mean."""


class Step:
    """`step(state, batches, *given) -> (state, metrics, rest of each batch)`: a step against the loss of all their rows.

    Its programs are compiled at the first call with rows of their shapes.
    """

    def __init__(
        self,
        layout: Layout,
        state: TrainState,
        optimizer: optax.GradientTransformation,
        loss: Loss,
        count: Count,
        share: Share = share_nothing,
    ):
        """Makes an update of states of this shape; the functions are traced with the layout's constraints."""
        self._layout, self._optimizer, self._count, self._share = layout, optimizer, count, share
        self._gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
        self._abstract = jax.eval_shape(lambda x: x, state)
        self._shared = Shared(layout, self._abstract.params, share)
        split, rows, same = layout.state(self._abstract), layout.sharding("batch"), layout.replicated
        self._held = {name: bytes_per_device(getattr(self._abstract, name), getattr(split, name)) for name in vars(split)}
        params, shared = split.params, self._shared.shardings
        jit = functools.partial(jax.jit, compiler_options=compiling.options(layout.platform))
        self._zeros = jax.jit(self._make_zeros, out_shardings=(params, shared))
        self._total = jax.jit(self._sum_counts, in_shardings=rows, out_shardings=same)
        self._add = jit(
            self._add_gradients,
            static_argnames=("number", "bucket"),
            donate_argnames="sums",
            in_shardings=(params, shared, (params, shared), rows, same, same, same),
            out_shardings=((params, shared), (same, rows)),
        )
        self._through = jit(
            self._go_through_shared, donate_argnames="gradients", in_shardings=(params, params, shared), out_shardings=params
        )
        self._apply = jit(
            self._apply_gradients, donate_argnames="state", in_shardings=(split, params), out_shardings=(split, same)
        )
        self._at_once = jit(
            self._compute_at_once,
            static_argnames="buckets",
            donate_argnames="state",
            in_shardings=(split, rows, same),
            out_shardings=(split, same, rows),
        )
        self._merge = jax.jit(metrics.merge)
        self._compiled = set[Hashable]()

    def __call__(
        self, state: TrainState, batches: Sequence[Batch], *given: Any, stoppable: bool = True
    ) -> tuple[TrainState, Metrics, list[Any]]:
        """The state after a step, whose memory is that of the state given; metrics of all rows, and the rest of the loss.

        Args:
          state: what is changed.
          batches: rows of one shape each.
          *given: further arguments of the loss.
          stoppable: whether a signal may interrupt the step between its micro-batches.

        Raises:
          distributed.StoppedError: SIGTERM or SIGINT came; the state is as it was.
        """
        shapes = micro_batches.shapes_of([batch.rows for batch in batches], given)
        if shapes not in self._compiled:
            micro_batches.compile_all(self.lower(state, batches, *given), stoppable)
            self._compiled.add(shapes)
        if _is_one_program(batches):
            idle.CLOCK.giving()
            state, found, rest = self._at_once(state, [b.rows for b in batches], given, tuple(b.buckets[0] for b in batches))
        else:
            gradients, found, rest = self.gradients(state.params, batches, *given, stoppable=stoppable)
            idle.CLOCK.giving()
            state, norm = self._apply(state, gradients)
            found |= norm
        idle.CLOCK.gave(found)
        return state, found, rest

    def gradients(
        self, params: Any, batches: Sequence[Batch], *given: Any, stoppable: bool = True
    ) -> tuple[Any, Metrics, list[Any]]:
        """(gradients in the parameters' dtype, split as they are, metrics of all rows, the rest of each batch).

        Raises:
          distributed.StoppedError: SIGTERM or SIGINT came.
        """
        total, shared, sums = self._total([batch.rows for batch in batches]), self._shared(params), self._zeros()
        merged, rests = {}, [[] for _ in batches]

        def add(number, index):
            nonlocal sums
            batch = batches[number]
            place = index, len(batch.buckets), batch.buckets[index]
            sums, found = self._add(params, shared, sums, batch.rows, total, given, *place)
            return number, found

        for number, (found, rest) in micro_batches.in_turn(add, batches, stoppable):
            merged = self._merge(merged, found) if merged else found
            rests[number].append(rest)
        gradients = sums[0] if self._shared.is_empty else self._through(params, *sums)
        return gradients, merged, [micro_batches.join(rest, self._layout.sharding("batch")) for rest in rests]

    def lower(self, state: TrainState, batches: Sequence[Batch], *given: Any) -> Iterator[Part]:
        """Yields its programs for arguments of these shapes, concrete or abstract, but for those that add up a few numbers."""
        rows = [batch.rows for batch in batches]
        if _is_one_program(batches):
            for chosen in itertools.product(*map(micro_batches.occurrences, batches)):
                buckets, times = zip(*chosen, strict=True)
                yield Part(self._at_once.lower(state, rows, given, buckets), min(times), 0)
            return
        yield Part(self._zeros.lower(), 1, sum(self._held.values()))
        params, shared, total = state.params, self._shared.shapes, jax.eval_shape(self._total, rows)
        sums, held = jax.eval_shape(self._zeros), self._held["opt_state"]
        yield from self._shared.lower(params, held)
        for batch in batches:
            for bucket, times in micro_batches.occurrences(batch):
                program = self._add.lower(params, shared, sums, batch.rows, total, given, 0, len(batch.buckets), bucket)
                yield Part(program, times, held)
        if not self._shared.is_empty:
            yield Part(self._through.lower(params, *sums), 1, held)
        yield Part(self._apply.lower(state, params), 1, 0)

    def _make_zeros(self):
        gradients = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self._abstract.params)
        return gradients, jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), self._shared.shapes)

    def _sum_counts(self, rows):
        return sum(map(self._count, rows))

    def _add_gradients(self, params, shared, sums, rows, total, given, index, number, bucket):
        with self._layout.constraints():
            found, aux = self._gradient(params, shared, micro_batches.take(rows, index, number, bucket), total, *given)
            return _constrained(jax.tree.map(jnp.add, sums, found)), aux

    def _go_through_shared(self, params, gradients, of_shared):
        """Gradients of the parameters, from what of them does not pass through what is shared, and the gradient of that."""
        with self._layout.constraints():
            shared, back = jax.vjp(self._share, params)
            (passed,) = back(jax.tree.map(lambda x, like: x.astype(like.dtype), of_shared, shared))
            return logical.constrain_params(jax.tree.map(jnp.add, gradients, passed))

    def _apply_gradients(self, state, gradients):
        with self._layout.constraints():
            norm = {"gradient_norm": Mean(optax.tree.norm(gradients), 1.0)}
            return train_state.apply_gradients(state, gradients, self._optimizer), norm

    def _compute_at_once(self, state, batches, given, buckets):
        total, sums, merged, rests = self._sum_counts(batches), None, {}, []
        with self._layout.constraints():
            shared = self._share(state.params)
            for rows, bucket in zip(batches, buckets, strict=True):
                taken = micro_batches.take(rows, 0, 1, bucket)
                found, (seen, rest) = self._gradient(state.params, shared, taken, total, *given)
                sums = _constrained(found if sums is None else jax.tree.map(jnp.add, sums, found))
                merged = metrics.merge(merged, seen) if merged else seen
                rests.append(rest)
            gradients = sums[0] if self._shared.is_empty else self._go_through_shared(state.params, *sums)
            state, norm = self._apply_gradients(state, gradients)
        return state, merged | norm, rests


def _constrained(sums: tuple[Any, Any]) -> tuple[Any, Any]:
    """Gradients of parameters and of what is shared, split as these are."""
    return logical.constrain_params(sums[0]), logical.constrain_batch(sums[1])


def _is_one_program(batches: Sequence[Batch]) -> bool:
    """Whether none of them is split, and their shapes pair up to no more programs than one for each shape."""
    shapes = [len({*batch.buckets, *batch.table}) for batch in batches]
    return all(len(batch.buckets) == 1 for batch in batches) and math.prod(shapes) <= sum(shapes)
