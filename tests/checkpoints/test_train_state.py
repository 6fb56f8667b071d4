"""States of training that are saved on a full disk, or restored from damaged checkpoints."""

import contextlib
import threading
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spct_jax import sharding
from spct_jax.checkpoints import steps, train_state
from spct_jax.errors import InputError


@pytest.fixture
def saved(tmp_path):
    """(directory, target, manager) with the checkpoints of two steps, each parameter the number of its step."""
    layout, optimizer = sharding.make_layout(devices=jax.devices()[:1]), optax.sgd(0.1)
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(steps.manager(tmp_path, keep=3))
        for step in (1, 2):
            state = train_state.make_state(layout, {"score": jnp.full(1000, float(step))}, optimizer)
            train_state.save(manager, step, state, {"tokens": 5.0})
        manager.wait_until_finished()
        yield tmp_path, train_state.abstract_state(layout, state.params, optimizer), manager


@pytest.mark.parametrize("where", ["save", "close"])
def test_a_full_disk_at_a_checkpoint_is_one_error_and_the_last_state_stays(where, saved, monkeypatch):
    directory, target, _ = saved
    full = ValueError("RESOURCE_EXHAUSTED: Failed to write 5 bytes to file 6: No space left on device [os_error_code='28']")
    state = train_state.restore_newest(target, directory)[1]
    with pytest.raises(InputError, match=r"checkpoints: a checkpoint cannot be written \(RESOURCE.* No space left on device"):
        with steps.manager(directory, keep=3) as manager:
            monkeypatch.setattr(manager, where, mock.Mock(side_effect=full))
            train_state.save(manager, 3, state, {})
            manager.wait_until_finished()
    assert train_state.restore_newest(target, directory)[0] >= 2


def test_where_not_even_a_directory_can_be_made_nothing_waits_for_it(saved):
    directory, target, _ = saved
    state = train_state.restore_newest(target, directory)[1]
    before = set(threading.enumerate())
    with pytest.raises(InputError, match=r"a checkpoint cannot be written \(.*: Not a directory\)"):
        with steps.manager(directory, keep=3) as manager:
            (directory / "checkpoints").rename(directory / "elsewhere")
            (directory / "checkpoints").touch()
            train_state.save(manager, 3, state, {})
            steps.finish(manager)
    waiting = [thread for thread in set(threading.enumerate()) - before if not thread.daemon]
    assert all(thread.name.startswith("asyncio") for thread in waiting), waiting  # those of a pool end when they are told
    (directory / "checkpoints").unlink()
    (directory / "elsewhere").rename(directory / "checkpoints")


def spoil(directory, step):
    largest = max((directory / "checkpoints" / str(step) / "params").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    largest.write_bytes(largest.read_bytes()[:-20])


def test_an_earlier_checkpoint_takes_a_damaged_ones_place(saved, capsys):
    directory, target, manager = saved
    spoil(directory, 2)
    step, state, progress = train_state.restore_newest(target, directory)
    assert (step, progress) == (1, {"tokens": 5.0}) and steps.listed(directory) == [1]
    np.testing.assert_array_equal(state.params["score"], 1.0)
    assert "checkpoint 2 is damaged" in capsys.readouterr().err
    assert [p.name.partition("-")[0] for p in (directory / "damaged").iterdir()] == ["2"]
    manager.reload()
    train_state.save(manager, 2, state, progress)
    manager.wait_until_finished()
    assert sorted(manager.all_steps()) == [1, 2]


def test_where_no_checkpoint_is_intact_all_stay(saved):
    directory, target, manager = saved
    spoil(directory, 1), spoil(directory, 2)
    with pytest.raises(InputError, match="no checkpoint is intact"):
        train_state.restore_newest(target, directory)
    assert sorted(manager.all_steps()) == [1, 2]
