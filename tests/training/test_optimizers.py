"""The learning rate's course."""

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
