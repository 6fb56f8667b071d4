"""What the stages share: the learning rate's course, and what becomes of checkpoints that are not whole."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spct_jax import sharding
from spct_jax.config import OptimizerConfig
from spct_jax.errors import InputError
from spct_jax.models import checkpoints
from spct_jax.training import loop


@pytest.mark.parametrize(
    ("warmup", "decay", "course"),
    [
        (4, 0.5, {0: 0.25, 3: 1.0, 5: 1.0, 7: 0.64, 9: 0.28}),  # up, across, down
        (4, 1.0, {0: 0.25, 3: 1.0, 4: 1.0, 7: 0.55, 9: 0.25}),  # decay takes what the warm-up leaves
        (50, 1.0, {0: 1 / 9, 8: 1.0, 9: 1.0}),
        (1, 0.0, {0: 1.0, 8: 1.0, 9: 1.0}),
    ],
)
def test_the_learning_rates_course_by_hand(warmup, decay, course):
    schedule = loop.make_schedule(OptimizerConfig(warmup_steps=warmup, decay_fraction=decay), 2.0, 10)
    assert {step: float(schedule(step)) / 2 for step in course} == pytest.approx(course, rel=1e-6)


@pytest.fixture
def saved(tmp_path):
    """(directory, target, manager) with the checkpoints of two steps, each parameter the number of its step."""
    layout, optimizer = sharding.make_layout(devices=jax.devices()[:1]), optax.sgd(0.1)
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(checkpoints.manager(tmp_path, keep=3))
        for step in (1, 2):
            state = loop.make_state(layout, {"score": jnp.full(1000, float(step))}, optimizer)
            loop.save(manager, step, state, {"tokens": 5.0})
        manager.wait_until_finished()
        yield tmp_path, loop.abstract_state(layout, state.params, optimizer), manager


def spoil(directory, step):
    largest = max((directory / "checkpoints" / str(step) / "params").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    largest.write_bytes(largest.read_bytes()[:-20])


def test_an_earlier_checkpoint_takes_a_damaged_ones_place(saved, capsys):
    directory, target, manager = saved
    spoil(directory, 2)
    step, state, progress = loop.restore_newest(manager, target, directory)
    assert (step, progress) == (1, {"tokens": 5.0}) and manager.all_steps() == [1]
    np.testing.assert_array_equal(state.params["score"], 1.0)
    assert "checkpoint 2 is damaged" in capsys.readouterr().err


def test_where_no_checkpoint_is_whole_all_stay(saved):
    directory, target, manager = saved
    spoil(directory, 1), spoil(directory, 2)
    with pytest.raises(InputError, match="no checkpoint is whole"):
        loop.restore_newest(manager, target, directory)
    assert sorted(manager.all_steps()) == [1, 2]
