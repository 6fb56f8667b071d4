"""Whatever there is to see is drawn, be it one point."""

import io

import numpy as np
from matplotlib import image

from spct_jax.reporting import benchmark_plots, plots


def test_a_curve_of_one_step_can_be_seen():
    """As of a stage of one step."""
    pixels = image.imread(io.BytesIO(plots.learning_curves({"rl": [{"step": 1, "reward": 0.25, "kl": None}]})))
    blue = np.array([0x00, 0x72, 0xB2]) / 255
    assert (np.abs(pixels[..., :3] - blue).max(axis=-1) < 0.01).sum() > 20


def test_every_way_of_voting_is_a_line():
    point = {"value": 0.5, "low": 0.25, "high": 0.75}
    names = ["vote", *(f"meta, {k_meta} of k" for k_meta in range(1, 9))]
    svg = benchmark_plots.scaling({name: {1: point, 8: point} for name in names}, None, None).decode()
    assert all(f"<!-- {name} 50.0 -->" in svg for name in names)


def test_numbers_of_votes_that_are_close_do_not_run_into_each_other():
    assert plots.tick_labels([1, 2, 4, 8, 16, 32]) == ["1", "2", "4", "8", "16", "32"]
    assert plots.tick_labels([1, 2, 4, 8, 16, 31, 32, 33]) == ["1", "2", "4", "8", "16", "", "", "33"]
    assert plots.tick_labels([1, 3, 512, 1000]) == ["1", "3", "512", "1000"] and plots.tick_labels([8]) == ["8"]
