"""Position bias, by hand and for a judge that always prefers what it sees first."""

import tracemalloc

import pytest

from spct_jax.evaluation import position
from spct_jax.evaluation.benchmarks.base import Answer, Item
from spct_jax.evaluation.recorded import Vote


def test_figures_by_hand():
    given, swapped = (0, 1), (1, 0)
    a = (Vote((5, 3), order=given), Vote((4, 4), order=given), Vote((2, 7), order=swapped), Vote(None, order=swapped))
    b = (Vote((9, 1), order=given), Vote((8, 2), order=swapped))
    answers = [Answer(Item("a", 2, 0), a), Answer(Item("b", 2, 0), b), Answer(Item("c", 1), (Vote((3,), order=(0,)),))]
    found = position.figures(answers)
    # Of a: the first vote names 0, the second either, the third 1, which it saw first; of b both name 0, seen first, then last.
    assert found["wins_by_position"] == {"2": pytest.approx([(1 + 1 / 2 + 1 + 1 + 0) / 5, (0 + 1 / 2 + 0 + 0 + 1) / 5])}
    assert found["score_by_position"] == {"2": pytest.approx([(5 + 4 + 7 + 9 + 2) / 5, (3 + 4 + 2 + 1 + 8) / 5])}
    # Across orders: votes 1 and 3 of a differ, votes 2 and 3 by half; those of b agree. In one order: votes 1 and 2 by half.
    assert found["changes_with_order"] == pytest.approx(((1 + 1 / 2) / 2 + 0) / 2)
    assert found["changes_in_order"] == pytest.approx(1 / 2)
    assert found["consistent"] == 1 / 2 and found["items"] == 2


def test_equal_sums_of_other_decimals_name_nobody():
    decimals = list(zip((8.9, 2.7, 6.0), (9.7, 6.5, 1.4), strict=True))
    votes = [Vote(pair, order=(0, 1)) for pair in decimals] + [Vote((5, 3), order=(1, 0))]
    assert position.figures([Answer(Item("a", 2, 0), tuple(votes))])["consistent"] == 0


def test_a_judge_that_prefers_what_comes_first():
    orders = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    votes = tuple(Vote(tuple(9 if index == order[0] else 3 for index in range(3)), order=order) for order in orders * 2)
    found = position.figures([Answer(Item("a", 3, 0), votes)])
    assert found["wins_by_position"] == {"3": [1, 0, 0]} and found["score_by_position"] == {"3": [9, 3, 3]}
    assert (found["changes_with_order"], found["changes_in_order"], found["consistent"]) == (1, 0, 0)


def test_pairs_of_an_item_count_one_by_one_and_ties_are_not_consistent():
    pair = (Vote((4, 4), order=(0, 1)), Vote((4, 4), order=(1, 0)))
    found = position.figures([Answer(Item("a", 3, 0), by_pair={(0, 1): pair, (0, 2): pair})])
    assert found["items"] == 2 and found["consistent"] == 0 and found["wins_by_position"] == {"2": [0.5, 0.5]}


def test_nothing_is_said_where_no_order_is_known():
    assert position.figures([Answer(Item("a", 2, 0), (Vote((1, 2)),)), Answer(Item("b", 2, 0), (Vote(order=(0, 1)),))]) is None


def test_many_votes_on_an_item_take_no_more_memory_than_they_are():
    votes = tuple(Vote((index % 3, 1), order=(index % 2, 1 - index % 2)) for index in range(3000))
    tracemalloc.start()
    try:
        found = position.figures([Answer(Item("a", 2, 0), votes)])
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
    # In either order a third is for the first response, a third ties, and a third is for the second.
    assert found["changes_with_order"] == pytest.approx(1 / 2) and found["changes_in_order"] == pytest.approx(1 / 2, abs=1e-3)
