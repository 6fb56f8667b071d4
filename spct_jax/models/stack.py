"""The stack of layers: parameters stacked by the pattern of kinds, scanned over."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from spct_jax.models.config import ModelConfig

Params = dict[str, Any]

UNROLLED_REPEATS = 2
"""Stacks of up to this many repeats are not scanned over: on CPU a scan's saved activations cost a third of a step."""


_REMAT = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
"""What is kept by each `ModelConfig.remat` besides a block's input."""


def run_layers(config: ModelConfig, body: Callable, carry: Any, layers: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Runs `body(kind, group, name, carry, index, layer) -> (carry, out)` over the stack, scanning over repeats.

    `layers` is any tree that starts like the parameters, {'blocks': {'0': [R ..]}, 'remainder': {'0': ..}}; the
    outputs come back in the same shape. `index` is the layer's row in its stack.
    """

    def group_body(group, kinds, carry, index, layers):
        outs = {}
        for i, kind in enumerate(kinds):
            step = functools.partial(body, kind, group, str(i))
            step = jax.checkpoint(step, policy=_REMAT[config.remat]) if config.remat != "none" else step
            carry, outs[str(i)] = step(carry, index, layers[str(i)])
        return carry, outs

    outs = {}
    if 0 < config.repeats <= UNROLLED_REPEATS:
        rows = []
        for r in range(config.repeats):
            layer = jax.tree.map(lambda a, r=r: a[r], layers["blocks"])
            carry, out = group_body("blocks", config.pattern, carry, r, layer)
            rows.append(out)
        outs["blocks"] = jax.tree.map(lambda *r: jnp.stack(r), *rows)
    elif config.repeats:
        rows = (jnp.arange(config.repeats), layers["blocks"])
        carry, outs["blocks"] = lax.scan(lambda c, row: group_body("blocks", config.pattern, c, *row), carry, rows)
    if config.remainder:
        carry, outs["remainder"] = group_body("remainder", config.remainder, carry, 0, layers["remainder"])
    return carry, outs


def stacks(config: ModelConfig, tree: dict[str, Any]) -> dict[str, Any]:
    """The layers' part of a tree of parameters."""
    return {group: tree[group] for group in ("blocks", "remainder") if group in tree}


def beside(values: dict[str, Any], layers: dict[str, Any]) -> dict[str, Any]:
    """Per layer the pair (parameters, its entry in `values`)."""
    return {group: {name: (block, values[group][name]) for name, block in stack.items()} for group, stack in layers.items()}


def unrolled(params: Params, config: ModelConfig) -> tuple[Params, ModelConfig]:
    """The same model with all its layers as one repeat of a longer pattern, hence without a scan over layers.

    A short stack decodes faster this way, every layer's cache being a buffer of its own; a deep one compiles slowly.
    """
    blocks = {
        str(r * len(config.pattern) + int(name)): jax.tree.map(lambda a, r=r: a[r : r + 1], stack)
        for name, stack in params.get("blocks", {}).items()
        for r in range(config.repeats)
    }
    rest = {
        str(len(blocks) + int(name)): jax.tree.map(lambda a: a[None], layer)
        for name, layer in params.get("remainder", {}).items()
    }
    others = {name: leaf for name, leaf in params.items() if name not in ("blocks", "remainder")}
    return others | {"blocks": blocks | rest}, dataclasses.replace(config, pattern=config.layer_kinds)
