"""When a vote stops: by hand, in order of the margin, and over simulated votes."""

import math

import numpy as np
import pytest

from spct_jax.judging import adaptive


def below(deviations):
    """Chance that a standard normal number is below."""
    return 0.5 * (1 + math.erf(deviations / math.sqrt(2)))


def test_the_chance_by_hand():
    # Differences 4, 0: mean 2, squares 8, variance (8 + 4 * 16) / (1 + 4) = 14.4; 6 samples are left of 8.
    want = below(-2 * math.sqrt(2 * 8 / (6 * 14.4)))
    assert adaptive.flip_chance([[7, 3], [5, 5]], 2, 8) == pytest.approx(want, rel=1e-12)
    # A third response, 6 behind in each: variance 64 / 5; the chances of both rivals are added.
    third = below(-6 * math.sqrt(2 * 8 / (6 * 12.8)))
    assert adaptive.flip_chance([[7, 3, 1], [9, 9, 3]], 3, 8) == pytest.approx(want + third, rel=1e-12)
    # Where one of three did not parse, so will one of three of the 6 that are left of 9.
    fewer = below(-2 * math.sqrt(2 * 6 / (4 * 14.4)))
    assert adaptive.flip_chance([[7, 3], None, [5, 5]], 2, 9) == pytest.approx(fewer, rel=1e-12)
    assert adaptive.decided([[7, 3], [5, 5]], 2, 8, want + 1e-9) and not adaptive.decided([[7, 3], [5, 5]], 2, 8, want - 1e-9)


def test_equals_are_an_even_chance_and_never_decided_before_the_end():
    assert adaptive.flip_chance([[5, 5]] * 4, 2, 32) == 0.5
    assert adaptive.flip_chance([[5, 5, 5, 5]] * 4, 4, 32) == 1.0
    assert not adaptive.decided([[5, 5]] * 31, 2, 32, 0.49)
    assert adaptive.decided([[5, 5]] * 32, 2, 32, 0.0)


def test_a_larger_margin_more_samples_and_less_spread_decide_sooner():
    def falls(chances):
        return all(a > b for a, b in zip(chances, chances[1:], strict=False))

    assert falls([adaptive.flip_chance([[5 + margin / 2, 5]] * 6, 2, 32) for margin in range(8)])
    assert falls([adaptive.flip_chance([[6, 5]] * m, 2, 32) for m in range(1, 32)])
    assert falls([adaptive.flip_chance([[7 + spread, 5], [7 - spread, 5]] * 3, 2, 32) for spread in (3, 2, 1, 0)])
    assert falls([-adaptive.flip_chance([[6, 5]] * 6, 2, k) for k in (8, 16, 32, 64)])


@pytest.mark.parametrize("seed", [0, 1])
def test_stopped_votes_say_otherwise_less_often_than_the_error_rate(seed):
    """Margins as the rule takes them to be: normal, their variance that of the prior, any mean equally likely in a wide range.

    A vote is looked at after every second sample, as it is drawn, so this is the rate of the whole procedure.
    """
    rng = np.random.default_rng(seed)
    k, error, votes = 32, 0.05, 1500
    other = drawn = 0
    for _ in range(votes):
        margins = rng.normal(rng.uniform(-12, 12), math.sqrt(adaptive.PRIOR_VARIANCE), k)
        samples = [(margin, 0.0) for margin in margins.tolist()]
        stop = next(m for m in range(2, k + 1, 2) if adaptive.decided(samples[:m], 2, k, error))
        drawn += stop
        other += (margins[:stop].sum() > 0) != (margins.sum() > 0)
    assert other / votes <= error
    assert 0 < other and drawn < 0.5 * votes * k


def test_the_chance_of_another_verdict_is_that_of_simulated_votes():
    """Scores drawn from a normal distribution; the estimate from 8 of 32 samples against how often the rest turns the vote."""
    rng = np.random.default_rng(0)
    turned, estimated = [], []
    for _ in range(2000):
        samples = rng.normal(rng.normal(0, 4, (1, 2)), 3.0, (32, 2))
        estimated.append(adaptive.flip_chance(samples[:8].tolist(), 2, 32))
        turned.append(samples[:8].sum(0).argmax() != samples.sum(0).argmax())
    assert np.mean(estimated) == pytest.approx(np.mean(turned), abs=0.03)
    likely = np.array(estimated) > 0.2
    assert np.mean(np.array(turned)[likely]) == pytest.approx(np.mean(np.array(estimated)[likely]), abs=0.06)


def test_votes_that_cannot_or_need_not_go_on():
    assert adaptive.flip_chance([[5]], 1, 8) == 0
    assert adaptive.flip_chance([[1, 9], [9, 1]], 2, 2) == 0
    assert adaptive.flip_chance([None, None], 2, 8) == 1
    assert adaptive.flip_chance([[9, 1]] * 8, 2, 32) < 1e-4 < adaptive.flip_chance([[6, 5]] * 8, 2, 32)
