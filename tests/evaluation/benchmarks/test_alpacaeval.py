"""AlpacaEval: shares, decisions, votes that could not be read."""

import by_hand
import pytest

from spct_jax.data.jsonl import ReadReport
from spct_jax.evaluation.benchmarks import catalogue


def test_by_hand():
    answers = [
        by_hand.scored(None, (0.25, 0.75)),  # a share
        by_hand.scored(None, (3, 8)),  # the higher of two scores
        by_hand.decided(None, "tie"),
        by_hand.decided(None, 0),
        by_hand.scored(None, None),  # left out
        by_hand.decided(None, 1, None, 0),  # half of what could be read
    ]
    found = by_hand.table("alpacaeval", *answers)["all items"]
    assert found == pytest.approx({"official": (0.75 + 1 + 0.5 + 0 + 0.5) / 5, "wins": 2 / 5, "draws": 2 / 5})


def test_without_any_vote_that_can_be_read_there_is_no_win_rate():
    assert by_hand.table("alpacaeval", by_hand.scored(None, None)) == {}


def test_files(tmp_path):
    (tmp_path / "outputs.json").write_text('[{"instruction": "i", "output_1": "a", "output_2": "b", "dataset": "koala"}]')
    (item,) = catalogue.get("alpacaeval").read(tmp_path, "fatal", ReadReport())
    assert (item.subset, item.best, item.comparison.responses) == ("koala", None, ("a", "b"))
