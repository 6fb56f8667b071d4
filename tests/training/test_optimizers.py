"""The learning rate's course, and what optimisers make of their settings."""

import jax
import numpy as np
import optax
import pytest

from spct_jax.training import optimizers
from spct_jax.training.config import OptimizerConfig


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
    schedule = optimizers.make_schedule(OptimizerConfig(warmup_steps=warmup, decay_fraction=decay), 2.0, 10)
    assert {step: float(schedule(step)) / 2 for step in course} == pytest.approx(course, rel=1e-6)


@pytest.mark.parametrize(("name", "of_matrix"), [("adam", 0.5), ("adafactor", 0.5), ("muon", 0.25)])
def test_each_step_takes_weight_decay_times_the_learning_rate_off_every_parameter(name, of_matrix):
    config = OptimizerConfig(name, 0.5, muon_learning_rate=0.25, warmup_steps=2, decay_fraction=0.0, weight_decay=0.1)
    optimizer = optimizers.make(config, 4)
    params = {"up": np.full((4, 4), 2.0, np.float32), "scale": np.full(4, 2.0, np.float32)}
    state, still = optimizer.init(params), jax.tree.map(np.zeros_like, params)
    for warmth in (0.5, 1.0):
        updates, state = optimizer.update(still, state, params)
        after = optax.apply_updates(params, updates)
        for leaf, rate in (("up", of_matrix), ("scale", 0.5)):
            np.testing.assert_allclose(after[leaf], params[leaf] * (1 - 0.1 * warmth * rate), rtol=1e-6)
        params = after


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_first_moments_in_half_precision_take_half_the_memory_and_hardly_change_the_steps(name):
    rng, steps = np.random.default_rng(0), {}
    params = {"up": rng.normal(size=(8, 8)).astype(np.float32), "scale": rng.normal(size=8).astype(np.float32)}
    gradients = [jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params) for _ in range(4)]
    for dtype in ("float32", "bfloat16"):
        optimizer = optimizers.make(OptimizerConfig(name, 0.5, muon_learning_rate=0.5, warmup_steps=1, mu_dtype=dtype), 4)
        state, steps[dtype] = optimizer.init(params), []
        for gradient in gradients:
            updates, state = optimizer.update(gradient, state, params)
            steps[dtype].append(np.concatenate([updates["up"].ravel(), updates["scale"]]))
        moments = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state) if ".mu" in jax.tree_util.keystr(path)]
        assert len(moments) == len(params) and {moment.dtype for moment in moments} == {np.dtype(dtype)}
    first, *later = (np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in zip(*steps.values(), strict=True))
    assert first == 0 and 0 < min(later) and max(later) < 0.01
