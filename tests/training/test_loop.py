"""What the loop of all stages does where numbers stop being finite."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stand_ins import stand_in

from spct_jax import models, sharding
from spct_jax.checkpoints import steps
from spct_jax.config import Config
from spct_jax.models import sizes
from spct_jax.training import loop
from spct_jax.training.config import CheckpointConfig
from spct_jax.training.context import Run
from spct_jax.training.metrics import Mean


@pytest.fixture(scope="module")
def params():
    config = dataclasses.replace(sizes.toy(32), num_layers=1, pattern=("global",), width=8, ffw_width=8)
    return config, jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))


@pytest.mark.parametrize(
    ("loss_at", "params_at", "says", "left"),
    [
        (1, 9, r"sft step 1: loss is nan; batch: a, b; there is no checkpoint yet$", []),
        (3, 9, r"sft step 3: loss is nan; batch: a, b; the last checkpoint, 2, is intact$", [2]),
        (2, 9, r"step 2: .* the last checkpoint, 2, holds the very parameters that this step began with$", [2]),
        (9, 3, r"step 3: params/final_norm/scale is not finite after the update; .* 2, is intact$", [2]),
    ],
)
def test_no_checkpoint_holds_nan_and_none_is_called_intact_that_is_not(params, tmp_path, loss_at, params_at, says, left):
    config, initial = params

    def update(state, step):
        metrics = {"loss": Mean(np.nan if step == loss_at else 1.0, 1.0)}
        if step == params_at:
            state = state.replace(params=state.params | {"final_norm": {"scale": jnp.full(8, jnp.inf)}})
        return loop.StepResult(state=state, metrics=metrics, ids=["a", "b"], tokens=1.0, roofline_seconds=0.0)

    settings = Config(checkpoint=CheckpointConfig(every_steps=2, keep=3), profile_steps=(0, 0))
    layout = sharding.make_layout(devices=jax.devices()[:1])
    run = stand_in(Run, workdir=tmp_path, config=settings, layout=layout, model=config)
    with pytest.raises(loop.BadLossError, match=says):
        loop.fit(run, "sft", lambda: initial, optax.sgd(0.1), update, 8)
    assert steps.listed(tmp_path / "sft") == left
