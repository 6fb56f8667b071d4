"""PPE Preference: ties of people are left out and counted."""

import json

import by_hand
import pytest

from spct_jax.evaluation.benchmarks import catalogue
from spct_jax.evaluation.benchmarks.reading import DataReport


def test_files(tmp_path):
    winners = ["model_a", "model_b", "tie", "tie (bothbad)"]
    rows = [
        {"question_id": str(i), "prompt": "p", "response_1": "a", "response_2": "b", "winner": w} for i, w in enumerate(winners)
    ]
    rows[1]["language"] = "German"
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = DataReport()
    items = catalogue.get("ppe_preference").read(path, "fatal", report)
    assert [(item.id, item.best, item.subset) for item in items] == [("0", 0, "English"), ("1", 1, "other languages")]
    assert (report.read, report.used, report.skipped) == (4, 2, {"people voted for a tie": 2})
    assert report.left_out == {"2", "3"}


def test_accuracy():
    answers = [by_hand.scored(0, row, subset="English") for row in [(2, 1), (1, 1), (1, 2), None]]
    found = by_hand.table("ppe_preference", *answers)["all items"]
    assert found == pytest.approx({"official": 1 / 4, "strict": 1 / 4, "paper": 1 / 2})
