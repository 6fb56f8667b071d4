"""Gradients of a loss, accumulated over micro-batches by `optax.microbatch`.

Micro-batch m of `count` has rows m, m + count, .. of the batch, so that rows stay on the device that has them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.microbatching import AccumulationType, Accumulator

from spct_jax.sharding import logical
from spct_jax.training.buckets import Bucket, at_smallest
from spct_jax.training.metrics import Metrics, merge


def accumulate(
    loss: Callable, params: Any, batch: Any, micro_batches: int = 1, onto: Any = None, buckets: Sequence[Bucket] = ()
) -> tuple[Any, Metrics, Any]:
    """Gradients of a loss over a batch, computed one micro-batch at a time.

    Args:
      loss: `loss(params, batch) -> (loss, (metrics, rest))`; the losses of micro-batches add up to the loss of the batch.
      params: what it is differentiated with respect to.
      batch: a tree of arrays with B as first axis.
      micro_batches: how many; divides B.
      onto: gradients, such as those of a batch of another shape, that these are added to.
      buckets: shapes that micro-batches are computed at, see `buckets.at_smallest`; () for that of the batch.

    Returns:
      (gradients in the parameters' dtype, split as the parameters are, the metrics, the rest of all micro-batches).
    """
    grad = at_smallest(jax.grad(loss, has_aux=True), buckets)
    if micro_batches == 1:
        total, (metrics, rest) = grad(params, batch)
        return logical.constrain_params(total if onto is None else jax.tree.map(jnp.add, onto, total)), metrics, rest
    begun = logical.constrain_params(jax.tree.map(jnp.zeros_like, params) if onto is None else onto)
    add = _accumulator(lambda _: begun, lambda total, part, _: logical.constrain_params(jax.tree.map(jnp.add, total, part)))
    combine = _accumulator(lambda new: jax.tree.map(jnp.zeros_like, new), _merge)
    rows = jax.tree.leaves(batch)[0].shape[0] // micro_batches
    total, (metrics, rest) = optax.microbatch(grad, 1, rows, (add, (combine, AccumulationType.CONCAT)))(params, batch)
    return total, metrics, rest


def _accumulator(init: Callable, update: Callable) -> Accumulator:
    return Accumulator(init, update, finalize=lambda x: x, aggregate=lambda x: x)


def _merge(merged: Metrics, new: Metrics, index: jax.Array) -> Metrics:
    # The first metrics replace what the loop begins with, so that a metric needs no neutral element.
    return jax.tree.map(lambda first, both: jnp.where(index == 0, first, both), new, merge(merged, new))
