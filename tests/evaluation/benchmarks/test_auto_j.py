"""Auto-J: agreement and consistency over both orders, plain accuracy, a band for ties."""

import json

import by_hand
import pytest

from spct_jax.data.jsonl import ReadReport
from spct_jax.evaluation.benchmarks import catalogue


def test_decisions_in_both_orders():
    cases = [(0, (0, 0)), (1, (1, 0)), ("tie", ("tie", "tie")), (0, (1, 1)), (1, (None, 1))]
    answers = [by_hand.decided(None if label == "tie" else label, *games, label=label) for label, games in cases]
    table = by_hand.table("auto_j", *answers)
    # Of the four without a tie the totals name 0, neither, 1 and 1: right, a tie, wrong, right.
    assert table["without ties"] == {"paper": 5 / 8, "strict": 1 / 2}
    official = {"official": 2 / 5, "consistency": 3 / 5, "single": 3 / 5}
    assert table["all items"] == pytest.approx(official | table["without ties"])


def test_scores_that_differ_little_are_a_tie_within_the_band():
    answers = [
        by_hand.scored(None, (5, 4), label="tie"),
        by_hand.scored(0, (7, 3), label=0),
        by_hand.scored(0, (5, 4), label=0),
    ]
    found = by_hand.table("auto_j", *answers)["all items"]
    assert (found["official"], found["agreement_band_1"]) == pytest.approx((2 / 3, 2 / 3))
    assert found["single"] == found["official"] and found["consistency"] == 1  # a rating of each response sees no order


def test_files(tmp_path):
    path = tmp_path / "testdata_pairwise.jsonl"
    row = {"scenario": "chitchat", "label": 2, "prompt": "p", "response 1": "a", "response 2": "b"}
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | {"label": 1}) + "\n")
    first, second = catalogue.get("auto_j").read(tmp_path, "fatal", ReadReport())
    assert (first.label, first.best, second.label, second.best, first.subset) == ("tie", None, 1, 1, "chitchat")
