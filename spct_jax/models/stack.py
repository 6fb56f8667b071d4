"""The stack of L layers as one tree: how it is built, run, zipped with others, and taken apart.

Layers repeat a pattern of attention kinds, (local, global) say. Layers at the same position of the pattern are held as one
stack, arrays with a leading axis R that has a row for each repeat, so that one loop runs over them. Layers that are left over
where the pattern does not divide L are held one by one, without that axis::

    {"blocks": {"0": {...: [R ..]}, "1": {...: [R ..]}},     one entry per position of the pattern
     "remainder": {"0": {...}}}                               only if the pattern does not divide L

Parameters, the keys and values of trunks, and the caches of branches are all trees of this form; no other module knows it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import PyTree

from spct_jax.models.config import ModelConfig

Params = dict[str, Any]
"""Parameters of a decoder, see `spct_jax.models.decoder`."""

UNROLLED_REPEATS = 2
"""Up to this many repeats are run without a scan: on CPU a scan's saved activations cost a third of a step."""

_REPEATED, _LEFT_OVER = "blocks", "remainder"

_REMAT = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
"""What is kept by each `ModelConfig.remat` besides a block's input."""


@dataclasses.dataclass(frozen=True)
class LayerStack:
    """One entry of the tree: the layers at one position of the pattern, or a single layer left over."""

    path: tuple[str, str]
    """Where it is in the tree."""
    kind: str
    """The kind of attention, `local` or `global`."""
    layers: tuple[int, ...]
    """Indices of its layers, from 0 to L - 1; row r of its arrays is layer layers[r]."""

    @property
    def leading(self) -> tuple[int, ...]:
        """Leading axes of its arrays: (R,), or none for a layer left over."""
        return (len(self.layers),) if self.path[0] == _REPEATED else ()

    def of(self, tree: PyTree) -> PyTree:
        """Its entry in a tree."""
        group, name = self.path
        return tree[group][name]

    def put(self, tree: PyTree, value: PyTree) -> PyTree:
        """The tree with another entry in its place."""
        group, name = self.path
        return tree | {group: tree[group] | {name: value}}


def entries(config: ModelConfig) -> list[LayerStack]:
    """The entries of the tree, in the order in which their first layers run."""
    period = len(config.pattern)
    repeated = config.repeats * period
    found = []
    if config.repeats:
        for i, kind in enumerate(config.pattern):
            found.append(LayerStack((_REPEATED, str(i)), kind, tuple(range(i, repeated, period))))
    for i, kind in enumerate(config.remainder):
        found.append(LayerStack((_LEFT_OVER, str(i)), kind, (repeated + i,)))
    return found


def build(config: ModelConfig, make: Callable[[LayerStack], PyTree]) -> PyTree:
    """The tree whose entries are `make(entry)`."""
    tree: dict[str, Any] = {}
    for entry in entries(config):
        group, name = entry.path
        tree.setdefault(group, {})[name] = make(entry)
    return tree


def map_stacks(function: Callable, *trees: PyTree) -> PyTree:
    """The tree whose entries are `function` of the entries of all trees; what the first holds besides layers is left out."""
    return {
        group: {name: function(*(tree[group][name] for tree in trees)) for name in trees[0][group]}
        for group in (_REPEATED, _LEFT_OVER)
        if group in trees[0]
    }


def zip_stacks(*trees: PyTree) -> PyTree:
    """One tree of several: each entry is the tuple of theirs."""
    return map_stacks(lambda *found: found, *trees)


def stacked(entry: LayerStack, tree: PyTree) -> PyTree:
    """An entry of a tree with a leading axis, [1 ..] for a layer left over."""
    return entry.of(tree) if entry.leading else jax.tree.map(lambda a: a[None], entry.of(tree))


def scan(config: ModelConfig, body: Callable, carry: PyTree, tree: PyTree) -> tuple[PyTree, PyTree]:
    """Runs all layers in order, by a loop over the repeats of the pattern.

    Args:
      config: the architecture; its `remat` says what of each layer is computed again in the backward pass.
      body: called as `body(entry, row, carry, layer) -> (carry, out)`, where `layer` is row `row` of `entry` in the tree.
      carry: what the first layer gets.
      tree: anything by layers, the parameters for instance.

    Returns:
      (what the last layer gives, the tree of what all gave).
    """
    groups: dict[str, list[LayerStack]] = {}
    for entry in entries(config):
        groups.setdefault(entry.path[0], []).append(entry)

    def run(group, carry, row, layers):
        outs = {}
        for entry in groups[group]:
            name = entry.path[1]
            step = functools.partial(body, entry, row)
            step = jax.checkpoint(step, policy=_REMAT[config.remat]) if config.remat != "none" else step
            carry, outs[name] = step(carry, layers[name])
        return carry, outs

    outs = {}
    if 0 < config.repeats <= UNROLLED_REPEATS:
        rows = []
        for r in range(config.repeats):
            layers = jax.tree.map(lambda a, r=r: a[r], tree[_REPEATED])
            carry, out = run(_REPEATED, carry, r, layers)
            rows.append(out)
        outs[_REPEATED] = jax.tree.map(lambda *r: jnp.stack(r), *rows)
    elif config.repeats:
        rows = (jnp.arange(config.repeats), tree[_REPEATED])
        carry, outs[_REPEATED] = lax.scan(lambda c, row: run(_REPEATED, c, *row), carry, rows)
    if config.remainder:
        carry, outs[_LEFT_OVER] = run(_LEFT_OVER, carry, 0, tree[_LEFT_OVER])
    return carry, outs


def is_last(config: ModelConfig, entry: LayerStack, row: Any) -> bool:
    """Whether `scan` calls its body for the last layer of all, and not in a loop, so that the carry may change its shape."""
    return isinstance(row, int) and entry.layers[row] == config.num_layers - 1


def from_layers(config: ModelConfig, layers: Sequence[PyTree]) -> PyTree:
    """The tree of L layers given in order, each a tree of NumPy arrays."""

    def make(entry: LayerStack):
        if not entry.leading:
            return layers[entry.layers[0]]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *(layers[i] for i in entry.layers))

    return build(config, make)


def to_layers(config: ModelConfig, tree: PyTree) -> list[PyTree]:
    """The L layers of a tree in order, each without the stacked axis."""
    layers = {}
    for entry in entries(config):
        for row, i in enumerate(entry.layers):
            layers[i] = jax.tree.map(lambda a, row=row: a[row], entry.of(tree)) if entry.leading else entry.of(tree)
    return [layers[i] for i in range(config.num_layers)]


def rows(stacked: jax.Array) -> list[jax.Array]:
    """The rows of an array [R ..], each still with an axis of one repeat, [1 ..]."""
    return [stacked[row : row + 1] for row in range(stacked.shape[0])]


def unroll(
    params: Params, config: ModelConfig, take_apart: Callable[[jax.Array], list[jax.Array]] = rows
) -> tuple[Params, ModelConfig]:
    """The same model with all its layers as one repeat of a longer pattern, hence without a scan over layers.

    `take_apart` is what computes `rows`. Decoding is faster this way, every layer's cache being a buffer of its own; the
    program of a deep model takes longer to compile.
    """
    blocks = {}
    for entry in entries(config):
        leaves, tree = jax.tree.flatten(entry.of(params))
        apart = [take_apart(a) if entry.leading else [a[None]] for a in leaves]
        for i, layer in zip(entry.layers, zip(*apart, strict=True), strict=True):
            blocks[str(i)] = jax.tree.unflatten(tree, layer)
    others = {name: leaf for name, leaf in params.items() if name not in (_REPEATED, _LEFT_OVER)}
    return others | {_REPEATED: blocks}, dataclasses.replace(config, pattern=config.layer_kinds)
