"""ReaLMistake: an area under the curve that knows ties, F1 of errors, answers that cannot be read."""

import json
import math

import by_hand
import numpy as np
import pytest

from spct_jax.data.jsonl import ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import catalogue, realmistake
from spct_jax.evaluation.benchmarks.base import Answer, Item
from spct_jax.evaluation.recorded import Vote


def scored(label, *scores, cell="t/m"):
    return by_hand.scored(None, *[None if score is None else (score,) for score in scores], n=1, subset=cell, label=label)


def slow_auc(goodness, good, tie):
    pairs = [(a, b) for a, x in zip(goodness, good, strict=True) if x for b, y in zip(goodness, good, strict=True) if not y]
    return np.mean([tie if math.isnan(a + b) or a == b else float(a > b) for a, b in pairs])


def test_the_area_under_the_curve_against_all_pairs():
    rng = np.random.default_rng(0)
    goodness = rng.integers(1, 6, 60).astype(float)
    goodness[::13] = np.nan
    good = rng.random(60) < 0.3
    for tie in (0.5, 0.0):
        assert realmistake.auc(goodness, good, tie) == pytest.approx(slow_auc(goodness, good, tie), abs=1e-15)
    assert math.isnan(realmistake.auc(goodness, np.ones(60, bool)))


def test_by_hand():
    answers = [scored("no_error", 8), scored("no_error", 5), scored("error", 5), scored("error", None), scored("error", 2)]
    found = by_hand.table("realmistake", *answers)["pooled"]
    # Pairs (no error, error): 8>5, 8?, 8>2, 5=5, 5?, 5>2.
    assert found["paper"] == pytest.approx((3 + 3 / 2) / 6) and found["strict"] == 3 / 6
    # Called errors, being below 5.5: both of the fives (one falsely) and the two; what was not read is no error, but not right.
    assert found["accuracy"] == 3 / 5
    assert (found["precision"], found["recall"], found["official"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_votes_are_averaged_or_counted():
    answers = [scored("no_error", 8, 3), scored("error", 9, 1), scored("no_error", 6, None)]
    assert by_hand.table("realmistake", *answers)["pooled"]["paper"] == 1  # 5.5 and 6 against 5
    answers = [scored("no_error", 8.9, 2.7, 6.0), scored("error", 9.7, 6.5, 1.4)]
    assert by_hand.table("realmistake", *answers)["pooled"]["paper"] == 1 / 2
    said = [
        Answer(Item(str(index), 1, None, "t/m", label), tuple(Vote(decision=one) for one in decisions))
        for index, (label, decisions) in enumerate([("error", (1, 1, 0)), ("no_error", (1, 0, None)), ("error", (None, None))])
    ]
    found = by_hand.table("realmistake", *said)["pooled"]
    # One vote for no error, one, none; of errors two, one and none: a tie of votes is no error.
    assert found["paper"] == pytest.approx((1 / 2 + 1) / 2) and found["accuracy"] == pytest.approx(2 / 3)
    assert (found["precision"], found["recall"]) == (1, 1 / 2)


def test_cells_are_averaged_and_pooled():
    answers = [scored("no_error", 8), scored("error", 7), scored("no_error", 2, cell="u/m"), scored("error", 1, cell="u/m")]
    table = by_hand.table("realmistake", *answers)
    assert table["t/m"]["paper"] == table["u/m"]["paper"] == table["mean of cells"]["paper"] == 1
    assert table["pooled"]["paper"] == 3 / 4


def test_scores_that_are_not_of_ten_have_no_accuracy():
    table = by_hand.table("realmistake", scored("no_error", 0.3), scored("error", -2.0))
    assert set(table["pooled"]) == {"paper", "strict"}


def test_files(tmp_path):
    directory = tmp_path / "math_word_problem_generation"
    directory.mkdir()
    row = {"input": "i", "llm_response": "r", "label": "error", "metadata": {"llm_response_model": "gpt-4-0613", "id": "7"}}
    (directory / "gpt-4-0613.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "example.jsonl").write_text(json.dumps(row) + "\n")
    (item,) = catalogue.get("realmistake").read(tmp_path, "fatal", ReadReport())
    assert (item.id, item.n, item.label) == ("math_word_problem_generation/gpt-4-0613/7", 1, "error")
    (directory / "gpt-4-0613.jsonl").write_text(json.dumps(row | {"label": "maybe"}) + "\n")
    with pytest.raises(InputError, match="jsonl:1: label is not one of error, no_error"):
        catalogue.get("realmistake").read(tmp_path, "fatal", ReadReport())
