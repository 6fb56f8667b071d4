"""RewardMATH: best of ten, the rank below ties, rows put together to problems."""

import json

import by_hand
import pytest

from spct_jax.data.jsonl import ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import catalogue


def test_the_right_solution_stands_below_those_that_tie_with_it():
    answers = [by_hand.scored(0, row, n=4) for row in [(9, 1, 1, 1), (5, 5, 5, 1), (3, 9, 1, 1), None]]
    found = by_hand.table("rewardmath", *answers)["all items"]
    assert found["official"] == found["strict"] == 1 / 4
    assert found["paper"] == pytest.approx((1 + 1 / 3 + 0 + 1 / 4) / 4)
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 2 + 1 / 4) / 4)
    assert found["pairs_won"] == pytest.approx((3 + 1 + 2 + 0) / 12)


def test_files(tmp_path):
    def row(problem, kind, *steps):
        return {"problem": "p", "eval_solution": steps, "solution_type": kind, "problem_id": problem} | {
            "subject": "Algebra",
            "answer": "17",
        }

    path = tmp_path / "RewardMATH_direct.json"
    rows = [row(0, "rejected", "b"), row(0, "chosen", "a", "so"), row(1, "rejected", "c"), row(0, "rejected", "d")]
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match="problem 1: 0 right and 1 wrong solutions"):
        catalogue.get("rewardmath").read(tmp_path, "fatal", ReadReport())
    report = ReadReport()
    (item,) = catalogue.get("rewardmath").read(tmp_path, "skip", report)
    assert (item.id, item.subset, item.comparison.responses) == ("0", "Algebra", ("a\nso", "b", "d"))
    assert item.reference == "17"
    assert report.skipped == {"0 right and 1 wrong solutions": 1}
