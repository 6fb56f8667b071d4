"""The tree of stacked layers: built, taken apart, run in order."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax.models import sizes, stack

# By repeats of the pattern and layers left over: none, unrolled, scanned.
CONFIGS = [
    dataclasses.replace(sizes.toy(), num_layers=layers, pattern=("local", "local", "global"), remat=remat)
    for layers, remat in ((2, "none"), (3, "full"), (8, "none"), (11, "dots"))
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.num_layers}-{config.remat}")
def test_layers_go_into_the_tree_and_come_back_in_order(config):
    layers = [{"x": np.full(2, i)} for i in range(config.num_layers)]
    tree = stack.from_layers(config, layers)
    jax.tree.map(np.testing.assert_array_equal, stack.to_layers(config, tree), layers)
    for entry in stack.entries(config):
        assert entry.of(tree)["x"].shape == (*entry.leading, 2)
        assert {config.layer_kinds[i] for i in entry.layers} == {entry.kind}
    built = stack.build(config, lambda entry: {"x": np.array(entry.layers).reshape(*entry.leading, 1) * np.ones(2, int)})
    jax.tree.map(np.testing.assert_array_equal, built, tree)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.num_layers}-{config.remat}")
def test_a_scan_meets_every_layer_in_order_and_gives_back_a_tree(config):
    tree = stack.from_layers(config, [np.float32(i) for i in range(config.num_layers)])

    def body(entry, row, carry, layer):
        one, two = layer
        return carry * 2 + one, (two, jnp.int32(row), entry.kind == "local")

    carry, outs = jax.jit(lambda tree: stack.scan(config, body, jnp.float32(0), stack.zip_stacks(tree, tree)))(tree)
    assert float(carry) == sum(i * 2.0 ** (config.num_layers - 1 - i) for i in range(config.num_layers))
    for i, (layer, row, local) in enumerate(stack.to_layers(config, outs)):
        assert layer == i and local == (config.layer_kinds[i] == "local")
        assert row == (i // 3 if i < config.repeats * 3 else 0)


def test_an_unrolled_model_has_its_layers_in_the_same_order():
    for config in CONFIGS:
        layers = [np.full(2, i) for i in range(config.num_layers)]
        stacked = jax.tree.map(jnp.asarray, stack.from_layers(config, layers))
        params, flat = stack.unroll(stacked | {"final_norm": np.ones(2)}, config)
        assert flat.repeats == 1 and not flat.remainder and flat.layer_kinds == config.layer_kinds
        jax.tree.map(np.testing.assert_array_equal, stack.to_layers(flat, params), layers)
        assert "final_norm" in params


def test_trees_are_mapped_entry_by_entry_without_what_is_no_layer():
    config = CONFIGS[2]
    tree = stack.from_layers(config, [np.float32(i) for i in range(config.num_layers)])
    doubled = stack.map_stacks(lambda a, b: a + b, tree | {"final_norm": 1}, tree)
    jax.tree.map(np.testing.assert_array_equal, doubled, jax.tree.map(lambda x: 2 * x, tree))
    entry = stack.entries(config)[-1]
    changed = entry.put(tree, 5)
    assert entry.of(changed) == 5 and entry.of(tree) == 7
