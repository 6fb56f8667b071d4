"""Intervals: how often they cover the truth, and what makes them wide."""

import numpy as np
import pytest

from spct_jax.evaluation import bootstrap


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        credits = rng.choice([0.0, 0.5, 1.0], p=[0.3, 0.2, 0.5], size=300)
        low, high = bootstrap.interval(credits, seed=trial, resamples=500)
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 400 <= 0.975


def test_interval_has_the_width_of_the_standard_error():
    credits = np.repeat([0.0, 1.0], [800, 1200])
    low, high = bootstrap.interval(credits)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.6 * 0.4 / 2000), rel=0.05)
    assert (low, high) == bootstrap.interval(credits) != bootstrap.interval(credits, seed=1)
    assert bootstrap.interval(np.ones(7)) == (1.0, 1.0)


def test_pairing_removes_what_both_sides_share():
    rng = np.random.default_rng(1)
    b = rng.integers(0, 2, 1000).astype(float)
    a = np.where(rng.random(1000) < 0.03, 1.0, b)
    difference = bootstrap.paired(a, b)
    assert difference.mean == pytest.approx((a - b).mean())
    assert 0 < difference.low < difference.mean < difference.high < 0.04
    with pytest.raises(ValueError, match="same problems"):
        bootstrap.paired(a, b[:-1])


def test_pooled_runs_count_by_their_problems():
    assert bootstrap.pooled([np.zeros(10), np.ones(30)]) == bootstrap.Difference(0.75, 0.75, 0.75)


def test_a_problem_common_to_the_runs_is_drawn_for_all_of_them():
    values = np.random.default_rng(2).normal(size=400)
    apart = bootstrap.pooled([values] * 4)
    together = bootstrap.pooled([values] * 4, shared_problems=True)
    assert (together.high - together.low) == pytest.approx(2 * (apart.high - apart.low), rel=0.15)


@pytest.mark.parametrize("shared", [False, True])
def test_two_levels_carry_the_spread_over_seeds(shared):
    differences = [np.full(50, mean) for mean in (0.0, 0.2, 0.4)]
    two = bootstrap.two_level(differences, shared_problems=shared)
    assert two.mean == pytest.approx(0.2)
    # All three draws the first seed, or all the last, have chance 1/27 each: beyond the 2.5 % tails.
    assert (two.low, two.high) == pytest.approx((0.0, 0.4))
    assert bootstrap.pooled(differences, shared_problems=shared).low == pytest.approx(0.2)


@pytest.mark.parametrize("shared", [False, True])
def test_two_levels_carry_the_spread_over_problems(shared):
    values = np.repeat([0.0, 1.0], 100)
    two = bootstrap.two_level([values, values], shared_problems=shared)
    # Both runs are alike, so only problems vary: a mean of 400 drawn apart, or of 200 drawn together.
    expected = 2 * 1.96 * np.sqrt(0.25 / (200 if shared else 400))
    assert two.high - two.low == pytest.approx(expected, rel=0.1)
