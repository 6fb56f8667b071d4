import math
from collections import Counter

import pytest

from spct_jax.grm.orders import balanced_orders, random_order, stable_hash


@pytest.mark.parametrize("n", range(1, 17))
def test_balanced_at_every_prefix(n):
    rows = balanced_orders(n, seed=3, id="a")
    assert len(rows) == n
    places = [Counter() for _ in range(n)]
    for sample in range(3 * n):
        for place, response in enumerate(rows[sample % n]):
            places[place][response] += 1
        for counts in places:
            values = [counts[response] for response in range(n)]
            assert max(values) - min(values) <= 1


@pytest.mark.parametrize("n", range(2, 17, 2))
def test_even_n_is_a_williams_design(n):
    followers = Counter(pair for row in balanced_orders(n, 0, "x") for pair in zip(row, row[1:], strict=False))
    assert len(followers) == n * (n - 1)
    assert set(followers.values()) == {1}


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_first_rotation_is_uniform(n):
    firsts = Counter(balanced_orders(n, seed, f"id{i}")[0] for seed in range(10) for i in range(400))
    assert len(firsts) == n
    assert all(abs(count / 4000 - 1 / n) < 0.04 for count in firsts.values())


def test_random_orders_are_uniform():
    counts = Counter(random_order(3, 0, f"id{i}", step) for i in range(200) for step in range(60))
    assert len(counts) == math.factorial(3)
    assert all(abs(count / 12_000 - 1 / 6) < 0.02 for count in counts.values())
    assert sorted(random_order(40, 1, "x", 2)) == list(range(40))


def test_pure_functions_of_their_arguments():
    assert stable_hash("a") == 1431053258 != stable_hash("b")
    assert balanced_orders(4, 0, "a") == [(1, 0, 2, 3), (2, 1, 3, 0), (3, 2, 0, 1), (0, 3, 1, 2)]
    assert random_order(5, 0, "a", 0) == (2, 0, 4, 3, 1)
    assert 0 <= stable_hash("\ud800") < 2**32
    assert len({random_order(12, seed, id, index) for seed in (0, 1) for id in "ab" for index in (0, 1)}) == 8


def test_no_responses():
    with pytest.raises(ValueError, match="no order of 0 responses"):
        balanced_orders(0, 0, "a")
