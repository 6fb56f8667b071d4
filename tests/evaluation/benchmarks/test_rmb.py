"""RMB: strict best of N by one prompt and by pairs, cells by item and by file."""

import json

import by_hand
import golden_files
import pytest
from shared_data import shared

from spct_jax.data.jsonl import ReadReport
from spct_jax.evaluation.benchmarks import catalogue, rmb
from spct_jax.evaluation.benchmarks.base import Answer, Item
from spct_jax.evaluation.recorded import Vote

HELP, HARM = "Helpfulness/Chat/Discussion", "Harmlessness/S1"


def test_cells_and_their_mean():
    answers = [
        by_hand.scored(0, (2, 1), subset=f"Pairwise_set/{HELP}"),
        by_hand.scored(0, (1, 1), subset=f"Pairwise_set/{HELP}"),
        by_hand.scored(0, (2, 1), subset="Pairwise_set/Helpfulness/Code"),
        by_hand.scored(0, (1, 2), subset=f"Pairwise_set/{HARM}"),
        by_hand.scored(0, (9, 8, 7), n=3, subset=f"BoN_set/{HELP}"),
        by_hand.scored(0, (9, 9, 7), n=3, subset=f"BoN_set/{HARM}"),
    ]
    table = by_hand.table("rmb", *answers)
    official = {name: columns["official"] for name, columns in table.items()}
    cells = {"Helpfulness, pairs": 2 / 3, "Harmlessness, pairs": 0, "Helpfulness, best of N": 1, "Harmlessness, best of N": 0}
    assert {name: official[name] for name in cells} == pytest.approx(cells)
    assert official["Overall"] == pytest.approx((2 / 3 + 0 + 1 + 0) / 4) and next(iter(table)) == "Overall"
    assert official["Helpfulness, pairs, mean of files"] == pytest.approx((1 / 2 + 1) / 2)
    assert official["Overall, mean of files"] == pytest.approx((3 / 4 + 0 + 1 + 0) / 4)
    assert table["Overall"]["paper"] == pytest.approx((2.5 / 3 + 0 + 1 + 1 / 2) / 4)


def test_best_of_n_by_pairs_needs_all_of_them():
    def by_pairs(*rows):
        item = Item("a", 3, 0, f"BoN_set/{HARM}")
        return Answer(item, by_pair={pair: (Vote(row),) for pair, row in zip(item.pairs, rows, strict=True)})

    answers = [by_pairs((2, 1), (3, 1)), by_pairs((2, 1), (1, 1)), by_pairs((2, 1), (1, 2)), by_pairs((2, 1), None)]
    found = by_hand.table("rmb", *answers)["Harmlessness, best of N"]
    assert found["official"] == 1 / 4 and found["paper"] == (1 + 1 / 2 + 0 + 1 / 2) / 4


@pytest.mark.parametrize("model", ["RM-R1-DeepSeek-Distilled-Qwen-32B", "RM-R1-Qwen2.5-Instruct-32B"])
def test_the_mean_of_four_cells_is_the_published_one(model):
    published = golden_files.load(shared("golden/rm_r1_aggregates.json"))[model]
    value = {f"{kind}/{goal}": accuracy for kind, goal, accuracy in _cells(published["rmb_meta"])}
    subsets = [name + "/all" for name in value]
    weights = rmb.aggregates(subsets)["Overall"]
    overall = sum(weight * value[subset.removesuffix("/all")] for subset, weight in weights.items())
    assert overall == pytest.approx(published["rmb_meta"]["Accuracy Averaged from Four Sections"], abs=1e-12)
    # Within a cell, files weigh by their items: the published totals of best of N say how many there are.
    for goal in ("Helpfulness", "Harmlessness"):
        counts, _ = published["rmb_files"][f"BoN_set_{goal}"]
        cell = counts["BoN Absolute Number of Correct"] / counts["BoN Absolute Total Numbers"]
        assert cell == pytest.approx(value[f"BoN_set/{goal}"], abs=1e-12)


def _cells(meta):
    for key, accuracy in meta.items():
        kind, _, goal = key.partition(" ")
        if goal in ("Helpfulness", "Harmlessness"):
            yield ("BoN_set" if kind == "BoN" else "Pairwise_set"), goal, accuracy


def test_files(tmp_path):
    conversation = [{"role": "user", "content": "q", "language": "English"}]
    pair = {"pair_uid": "7", "chosen": {"llm_name": "x", "answer": "a"}, "reject": {"llm_name": "y", "answer": "a"}}
    best = {"bon_uid": "7", "bon_best": {"answer": "a"}, "loser_list": [{"answer": "b"}, {"answer": ""}]}
    best["category_path"] = "BoN_set/Harmlessness/S1"
    for path, row in ((f"Pairwise_set/{HELP}.json", pair), ("BoN_set/Harmlessness/S1.json", best)):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(json.dumps([row | {"conversation_input": conversation}]))
    many, two = catalogue.get("rmb").read(tmp_path, "fatal", ReadReport())
    assert (many.id, many.n, many.best, many.pairs) == ("BoN_set/Harmlessness/S1/7", 3, 0, ((0, 1), (0, 2)))
    assert many.unjudgeable == "empty response (number 3)"
    assert (two.id, two.subset, two.comparison.responses) == (f"Pairwise_set/{HELP}/7", f"Pairwise_set/{HELP}", ("a", "a"))
    assert two.has_equal_responses and not many.has_equal_responses
