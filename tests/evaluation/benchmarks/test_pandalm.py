"""PandaLM: majority of three people, verdicts that are none count as a tie."""

import json

import by_hand
import pytest
from shared_data import shared

from spct_jax.data.jsonl import ReadReport
from spct_jax.evaluation.benchmarks import catalogue


def test_by_hand():
    answers = [by_hand.scored(0, (2, 1), label=0), by_hand.scored(1, (1, 1), label=1), by_hand.scored(None, None, label="tie")]
    table = by_hand.table("pandalm", *answers)
    assert table["all items"]["official"] == pytest.approx(2 / 3)
    assert table["without ties"] == {"paper": 3 / 4, "strict": 1 / 2}
    assert (table["all items"]["paper"], table["all items"]["strict"]) == (3 / 4, 1 / 2)


def test_the_published_file():
    items = catalogue.get("pandalm").read(shared("data/pandalm"), "fatal", ReadReport())
    assert len(items) == 999 and sum(item.best is None for item in items) == 105
    assert {item.unjudgeable.partition(" (")[0] for item in items} == {"", "empty response", "response is not a string"}


def test_a_row_without_a_majority_is_bad(tmp_path):
    row = {"idx": 0, "instruction": "i", "input": "more", "response1": "a", "response2": "b", "annotator1": 0, "annotator2": 1}
    path = tmp_path / "testset-v1.json"
    path.write_text(json.dumps([row | {"annotator3": 2}, row | {"idx": 1, "annotator3": 1}]))
    report = ReadReport()
    (item,) = catalogue.get("pandalm").read(path, "skip", report)
    assert (item.id, item.label, item.comparison.query) == ("1", 0, "i\n\nmore")
    assert report.skipped == {"the three annotators disagree": 1}
