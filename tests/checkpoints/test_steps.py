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
