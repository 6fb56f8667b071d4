"""EvalBiasBench: accuracy per kind of bias, and in both orders."""

import collections

import by_hand
import pytest
from shared_data import shared

from spct_jax.data.jsonl import ReadReport
from spct_jax.evaluation.benchmarks import catalogue


def test_by_hand():
    answers = [
        by_hand.scored(0, (2, 1), (2, 1), subset="length bias"),
        by_hand.scored(0, (3, 1), (1, 2), subset="length bias"),
        by_hand.scored(0, (1, 1), (1, 1), subset="concreteness"),
    ]
    table = by_hand.table("evalbiasbench", *answers)
    assert table["all items"] == pytest.approx({"official": 2 / 3, "paper": 5 / 6, "strict": 2 / 3, "both": 1 / 3})
    assert table["mean of kinds"]["official"] == 1 / 2


def test_the_published_file():
    items = catalogue.get("evalbiasbench").read(shared("data/evalbiasbench"), "fatal", ReadReport())
    kinds = collections.Counter(item.subset for item in items)
    assert len(items) == 80 and len(kinds) == 6 and kinds["length bias"] == 17 and all(item.best == 0 for item in items)
