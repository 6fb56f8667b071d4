"""Rounding up."""

import pytest

from spct_jax import rounding


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (rounding.next_power_of_two, [1, 1, 2, 4, 4, 8]),
        (rounding.next_power_of_four, [1, 1, 4, 4, 4, 16]),
        (lambda number: rounding.next_power_of_two(number, 4), [4, 4, 4, 4, 4, 8]),
        (lambda number: rounding.ceil_div(number, 2), [0, 1, 1, 2, 2, 3]),
    ],
)
def test_rounds_up(function, wanted):
    assert [function(number) for number in range(6)] == wanted
