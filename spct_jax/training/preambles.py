"""The preamble of a template, with which most prompts of a stage begin: a step computes its trunk once, and rows continue it.

A prompt that does not begin with it, such as a general instruction or one of another template, continues nothing, in the same
programs. Gradients flow through the preamble's trunk as through any other.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from spct_jax import models
from spct_jax.data.batches import Groups
from spct_jax.grm.template import Template
from spct_jax.models import Trunk, flops
from spct_jax.models.config import ModelConfig
from spct_jax.sampling import engine_shape
from spct_jax.training import bucket_choice
from spct_jax.training.context import Run
from spct_jax.training.micro_batches import Share, share_nothing

Preamble = tuple[int, ...]
"""Its tokens; () for none."""
Layers = dict[str, PyTree[Float[Array, "..."]]]
"""{"layers": ...} of the preamble's `Trunk` of one row: what of it gradients are taken for."""


def of(run: Run, template: Template) -> Preamble:
    """What prompts of a template begin with, if it is long enough; () where updates have one shape, with complete prompts."""
    if bucket_choice.is_one_shape(run.config.data):
        return ()
    preamble = tuple(run.prompter.preamble_of(template))
    return preamble if len(preamble) >= engine_shape.LEAST_SHARED else ()


def share(config: ModelConfig, preamble: Preamble, decoder: Callable[[Any], Any] = lambda params: params) -> Share:
    """What computes the preamble's `Layers` from parameters, of which `decoder` gives those of the decoder."""
    if not preamble:
        return share_nothing

    def compute(params: Any) -> Layers:
        tokens = jnp.array([preamble], jnp.int32)
        return {"layers": models.prefill(decoder(params), config, tokens, jnp.array([len(preamble)])).layers}

    return compute


def arithmetic(run: Run, preamble: Preamble, *, gradients: bool = True) -> float:
    """Floating-point operations of a preamble in a step: of an update, in which it is computed once for its micro-batches and
    once more for its gradient, or without gradients. Devices that split rows compute it each.
    """
    if not preamble:
        return 0.0
    cost = flops.prefill(run.model, 1, len(preamble))
    if gradients:
        cost += flops.prefill_update(run.model, 1, len(preamble))
    return run.layout.batch_shards * cost


def trunk(shared: Layers | None, rows: Groups) -> Trunk | None:
    """The preamble's trunk as these rows continue it, by as many of its tokens as they share; None where there is none."""
    return None if shared is None else Trunk(layers=shared["layers"], lengths=rows.shared.reshape(-1))
