"""RewardBench 2: shared credit for ties, and the formula of the subset Ties."""

import json
import math

import by_hand
import pytest

from spct_jax.data.jsonl import ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation import matching
from spct_jax.evaluation.benchmarks import catalogue, rewardbench2
from spct_jax.evaluation.recorded import Recorded, Vote


def ties(id, scores, correct):
    return by_hand.scored(None, scores, n=len(scores or range(4)), subset="Ties", label=correct, id=id)


def test_the_right_response_shares_its_point_with_those_that_tie_with_it():
    rows = [(4, 1, 2, 3), (4, 4, 2, 3), (4, 4, 4, 4), (3, 4, 4, 4), None, (-1, -1, -1, -1), (-1, 5, -1, 2)]
    answers = [by_hand.scored(0, row, n=4, subset="Focus") for row in rows]
    found = by_hand.table("rewardbench2", *answers)["mean of subsets"]
    assert found["official"] == pytest.approx((1 + 1 / 2 + 1 / 4 + 0 + 1 / 4 + 1 / 4 + 0) / 7)
    said = [by_hand.decided(0, one, n=4, subset="Focus") for one in (0, 2, None, "tie")]
    assert by_hand.table("rewardbench2", *said)["mean of subsets"]["official"] == (1 + 0 + 1 / 4 + 1 / 4) / 4


def test_ties_by_hand():
    answers = [
        ties("tied:1", (9, 7, 4, 1), 2),  # accurate; gap 3, spread 2
        ties("ref:1", (8, 7, 2, 1), 1),  # accurate; gap 1, the lesser one, below the spread
        ties("tied:2", (5, 5, 6, 1), 2),  # not accurate; gap -1, spread 0
        ties("ref:2", (6, 6, 2, 1), 1),  # a tie is not accurate; gap 0
        ties("tied:3", (5, 5, 5, 1), 2),  # gap 0, spread 0: 0/0 in the last term
        ties("ref:3", (9, 1, 1, 1), 1),  # accurate
        ties("tied:4", (5, 5, 2, 1), 2),  # accurate; gap 3, spread 0: an infinity
        ties("ref:4", (9, 1, 1, 1), 1),  # accurate
        ties("tied:5", (5, 2, 1, 1), 2),  # accurate, and alone: counts for accuracy only
    ]
    margin = (math.tanh(1 / 2 - 1) + math.tanh(-math.inf) + 0 + math.tanh(math.inf)) / 4
    expected = 0.3 * 3 / 5 + 0.3 * 3 / 4 + 0.2 * 2 / 4 + 0.2 * 1 / 4 + 0.01 * margin
    found = by_hand.table("rewardbench2", *answers)
    assert found["Ties"]["official"] == pytest.approx(expected, abs=1e-15)


def test_ratings_that_failed_stay_scores_in_ties():
    answers = [ties("tied:1", (9, -1, 4, 1), 2), ties("ref:1", None, 1)]
    # The worst right one is the failed one: gap -5, spread 10. Nothing at all could be read of the other: gap 0.
    expected = 0.01 * math.tanh(-5 / 10 - 1)
    assert by_hand.table("rewardbench2", *answers)["Ties"]["official"] == pytest.approx(expected, abs=1e-15)


def test_a_prompt_of_which_fewer_votes_could_be_read_is_compared_by_their_mean():
    read = {"n": 4, "subset": "Ties"}
    answers = [
        by_hand.scored(None, (9, 8, 4, 1), None, **read, label=2, id="tied:1"),  # gap 4, spread 1
        by_hand.scored(None, (5, 4, 2, 1), (5, 4, 2, 1), **read, label=1, id="ref:1"),  # gap 1, that is not above the spread
    ]
    assert by_hand.table("rewardbench2", *answers)["Ties"]["official"] == pytest.approx(0.3 + 0.3 + 0.2, abs=1e-15)


def test_the_average_is_over_six_subsets():
    answers = [by_hand.scored(0, (2, 1, 1, 1), n=4, subset=subset) for subset in rewardbench2.SUBSETS[:-1]]
    answers += [
        by_hand.scored(0, (1, 2, 1, 1), n=4, subset="Math"),
        ties("tied:1", (9, 8, 1, 1), 2),
        ties("ref:1", (9, 1, 1), 1),
    ]
    table = by_hand.table("rewardbench2", *answers)
    subset = 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(7 / 1 - 1)
    assert next(iter(table)) == "Overall"
    assert table["Ties"]["official"] == pytest.approx(subset)
    assert table["Overall"]["official"] == pytest.approx((4 * 1 + 1 / 2 + subset) / 6)
    assert table["mean of subsets without Ties"]["official"] == pytest.approx(4.5 / 5)
    assert "Overall" not in by_hand.table("rewardbench2", *answers[1:])


def test_files(tmp_path):
    rows = [
        {"id": 3, "subset": "Math", "prompt": "p", "chosen": ["a"], "rejected": ["b", "c", "d"], "num_correct": 1},
        {"id": "tied:1", "subset": "Ties", "prompt": "p", "chosen": ["a", "b"], "rejected": ["c"], "num_correct": 2},
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    math_item, ties_item = catalogue.get("rewardbench2").read(path, "fatal", ReadReport())
    assert (math_item.id, math_item.n, math_item.best) == ("Math/3", 4, 0)
    assert (ties_item.id, ties_item.n, ties_item.best, ties_item.label) == ("Ties/tied:1", 3, None, 2)
    path.write_text(json.dumps(rows[1] | {"id": "9"}) + "\n")
    with pytest.raises(InputError, match="test.jsonl:1: the id of an item of Ties is not ref"):
        catalogue.get("rewardbench2").read(path, "fatal", ReadReport())


def test_recorded_votes_on_ties_know_no_single_right_response():
    line = {"label": 2, "scores": [[9, 8, 1]]}
    found = matching.stand_alone(catalogue.get("rewardbench2"), [Recorded("tied:1", (Vote((9, 8, 1)),), "Ties", line)], "f")
    assert (found[0].item.best, found[0].item.pairs, found[0].item.label) == (None, (), 2)
