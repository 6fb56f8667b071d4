"""The stage that judges held-out problems: what a killed run has left."""

import types

import jax
import pytest

from spct_jax import sharding
from spct_jax.errors import InputError
from spct_jax.evaluation import evaluate
from spct_jax.runtime import memory


def test_a_kill_in_the_midst_of_a_move_leaves_nothing_behind(tmp_path):
    """In a bucket a move is a copy, and then a removal."""
    for name in ("rl_greedy.jsonl", "rl_greedy.partial.jsonl"):
        (tmp_path / name).write_text("{}\n")
    one = evaluate.Pass("rl_greedy", "rl", 1, 0.0, guided=False)
    assert list(evaluate._run_pass(None, tmp_path, [], one, None)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["rl_greedy.jsonl"]


def test_shapes_are_chosen_for_the_memory_that_the_stage_was_begun_with(monkeypatch):
    run = types.SimpleNamespace(rollout_layout=sharding.make_layout(devices=jax.devices()[:1]))
    monkeypatch.setattr(memory, "limit", lambda device: 8 << 30)
    assert evaluate._memory(run, 0) == 8 << 30 and evaluate._memory(run, 4 << 30) == 4 << 30
    with pytest.raises(InputError, match=r"^evaluate: shapes were chosen for 16.00 GiB .* with a config.evaluation.slots of"):
        evaluate._memory(run, 16 << 30)


def test_slots_that_are_not_given_are_left_to_the_memory(micro_config):
    micro_config.evaluation.slots = 0
    limits = types.SimpleNamespace(max_prompt=64, max_completion=32)
    layout = sharding.make_layout(devices=jax.devices()[:1])
    run = types.SimpleNamespace(config=micro_config, limits=limits, rollout_layout=layout)
    options = evaluate.options_for(run, evaluate.Pass("rl_sampled", "rl", 4, 1.0, guided=False), 8 << 30)
    assert (options.batch_size, options.memory, options.k) == (0, 8 << 30, 4)
    micro_config.evaluation.slots = 32
    assert evaluate.options_for(run, evaluate.Pass("rl_sampled", "rl", 4, 1.0, guided=False)).batch_size == 8
