import math
import random

import pytest

from spct_jax.grm.parse import unshuffle
from spct_jax.grm.voting import expected_credit, guided_vote, is_tie, mean_vote, sum_vote, winners

TABLE_17 = [(8, 8), (5, 9), (7, 10)]
FIGURE_3 = [(1, 5), (5, 6), (4, 8), (7, 6)]


def test_table_17():
    assert sum_vote(TABLE_17, 2) == (20, 27)
    shown = [((0, 1), (8, 8)), ((1, 0), (9, 5)), ((1, 0), (10, 7))]
    assert sum_vote([unshuffle(scores, order) for order, scores in shown], 2) == (20, 27)
    meta = [-15.7781, 1.3126, 1.6739]
    assert guided_vote(TABLE_17, meta, 2, 2) == (12, 19)
    assert guided_vote(TABLE_17, meta, 1, 2) == (7, 10)


def test_figure_3():
    assert sum_vote(FIGURE_3, 2) == (17, 25)
    assert guided_vote(FIGURE_3, [0.9, 0.2, 0.8, 0.1], 2, 2) == (5, 13)


def test_none_samples_are_left_out():
    assert sum_vote([None, (1, 2), None], 2) == (1, 2)
    assert mean_vote([None, (1, 2), (2, 5)], 2) == (1.5, 3.5)
    assert sum_vote([None, (0, 1, 0), (0, 1, 0), (1, 0, 0)], 3) == (1, 2, 0)
    for vote in (sum_vote, mean_vote):
        assert vote([None, None], 2) is None
        assert vote([], 2) is None
    assert guided_vote([None, None], [1.0, None], 1, 2) is None


def test_guided_vote_ranks_only_what_parsed():
    samples = [None, (1, 2), (3, 4), (5, 6)]
    assert guided_vote(samples, [9.0, 0.0, 1.0, None], 2, 2) == (4, 6)
    assert guided_vote(samples, [9.0, 0.0, math.nan, -5.0], 2, 2) == (6, 8)
    assert guided_vote(samples, [9.0, 1.0, 1.0, 1.0], 2, 2) == (4, 6)
    assert guided_vote(samples, [0.0] * 4, 9, 2) == sum_vote(samples, 2)


def test_guided_vote_at_k_1_is_plain_sampling():
    assert guided_vote([(3, 9)], [-2.0], 1, 2) == sum_vote([(3, 9)], 2)


def test_tie_credit():
    assert expected_credit((5, 5, 1), 0, 3) == 0.5
    assert expected_credit((5, 5, 1), 2, 3) == 0.0
    assert expected_credit((5, 6, 1), 1, 3) == 1.0
    assert expected_credit((2, 2, 2, 2), 3, 4) == 0.25
    assert expected_credit(None, 1, 4) == 0.25
    assert [is_tie(totals) for totals in ((5, 5, 1), (5, 4, 4), (3,), None)] == [True, False, False, False]
    assert [winners(totals) for totals in ((5, 1, 5), (4, 5), (3,), None)] == [(0, 2), (1,), (0,), ()]


def test_tie_credit_is_the_mean_over_random_shuffles():
    rng = random.Random(0)
    totals, hits = (7, 3, 7, 7), 0
    for _ in range(20_000):
        order = rng.sample(range(4), 4)
        hits += max(order, key=lambda index: totals[index]) == 2
    assert abs(hits / 20_000 - expected_credit(totals, 2, 4)) < 0.01


def test_errors():
    with pytest.raises(ValueError, match="exactly 2 scores"):
        sum_vote([(1, 2, 3)], 2)
    with pytest.raises(ValueError, match="k_meta is 0"):
        guided_vote([(1, 2)], [0.0], 0, 2)
    with pytest.raises(ValueError, match="1 meta rewards for 2 samples"):
        guided_vote([(1, 2), None], [0.0], 1, 2)
