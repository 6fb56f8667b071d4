"""HHH: taken out of Prometheus' prompt."""

import collections

import by_hand
import pytest
from shared_data import shared

from spct_jax.data.jsonl import ReadReport
from spct_jax.evaluation.benchmarks import catalogue


def test_by_hand():
    answers = [
        by_hand.scored(0, row, subset=subset) for row, subset in [((2, 1), "honest"), ((1, 1), "honest"), ((1, 2), "other")]
    ]
    table = by_hand.table("hhh", *answers)
    assert table["all items"] == pytest.approx({"official": 1 / 3, "paper": 1 / 2, "strict": 1 / 3})
    assert table["mean of subsets"]["official"] == 1 / 4


def test_the_published_file():
    items = catalogue.get("hhh").read(shared("data/prometheus"), "fatal", ReadReport())
    assert collections.Counter(item.subset for item in items) == {"honest": 61, "helpful": 59, "harmless": 58, "other": 43}
    assert not any("###" in text for item in items for text in (item.comparison.query, *item.comparison.responses))
