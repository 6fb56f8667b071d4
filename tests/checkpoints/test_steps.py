"""Steps as they are written."""

import jax.numpy as jnp
import pytest

from spct_jax.checkpoints import steps, train_state


@pytest.mark.parametrize(("keep_hours", "left"), [(0.0, [3]), (1e-9, [1, 2, 3])])
def test_checkpoints_are_kept_by_count_and_by_time(keep_hours, left, tmp_path):
    state = train_state.TrainState(params={"score": jnp.ones(3)}, opt_state={"count": jnp.zeros(1)})
    with steps.manager(tmp_path, keep=1, keep_hours=keep_hours) as manager:
        for step in (1, 2, 3):
            train_state.save(manager, step, state, {})
        manager.wait_until_finished()
        assert sorted(manager.all_steps()) == left


def test_only_names_that_are_written_as_steps_are_steps(tmp_path):
    for name in ("0", "12", "3", "0007", "7 (copy)", "\u00b2", "4.orbax-checkpoint-tmp", "digests"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert steps.listed(tmp_path) == [12, 3, 0]
