"""Gradients of a loss, accumulated over micro-batches."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spct_jax.sharding import logical
from spct_jax.training.metrics import Metrics, merge


def split_micro_batches(batch: Any, count: int) -> Any:
    """A tree of arrays [B ..] as `count` micro-batches, [count B/count ..]: number m has rows m, m + count, .."""

    def split(x):
        # Strided, so that rows stay on the device that has them.
        return logical.constrain(jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), None, "batch")

    return jax.tree.map(split, batch)


def join_micro_batches(micro_batches: Any) -> Any:
    """Undoes `split_micro_batches`: the rows [B ..]."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), micro_batches)


def accumulate(loss: Callable, params: Any, batch: Any, micro_batches: int = 1, onto: Any = None) -> tuple[Any, Metrics, Any]:
    """Gradients of a loss over a batch, computed one micro-batch at a time.

    Args:
      loss: `loss(params, batch) -> (loss, (metrics, rest))`; the losses of micro-batches add up to the loss of the batch.
      params: what it is differentiated with respect to.
      batch: a tree of arrays with B as first axis.
      micro_batches: how many; divides B.
      onto: gradients, such as those of a batch of another shape, that these are added to.

    Returns:
      (gradients in the parameters' dtype, split as the parameters are, the metrics, the rest of all micro-batches).
    """
    grad = jax.grad(loss, has_aux=True)
    if micro_batches == 1:
        total, (metrics, rest) = grad(params, batch)
        total = total if onto is None else jax.tree.map(jnp.add, onto, total)
    else:

        def step(total, rows):
            part, (metrics, rest) = grad(params, rows)
            return logical.constrain_params(jax.tree.map(jnp.add, total, part)), (metrics, rest)

        begun = logical.constrain_params(jax.tree.map(jnp.zeros_like, params) if onto is None else onto)
        total, (each, rest) = lax.scan(step, begun, split_micro_batches(batch, micro_batches))
        metrics = functools.reduce(merge, [jax.tree.map(lambda x, m=m: x[m], each) for m in range(micro_batches)])
        rest = join_micro_batches(rest)
    return logical.constrain_params(total), metrics, rest
