"""Rows of somebody else's making: whatever stands in a field, one line says what is wrong with it."""

import json

import pytest

from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import catalogue, sampled
from spct_jax.evaluation.benchmarks.base import Item
from spct_jax.evaluation.benchmarks.reading import DataReport

PPE = {"question_id": "1", "prompt": "p", "scores": [True, False], "sampled_conflict_pairs": [[0, 1]]}
PPE |= {"response_1": "a", "response_2": "b"}
PANDALM = {"idx": 1, "instruction": "q", "response1": "a", "response2": "b", "cmp_key": "a_b"}
PANDALM |= {f"annotator{number}": 1 for number in (1, 2, 3)}
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
GSM8K = {"question": "q"} | {model: {"solution": model, "is_correct": model == MODELS[0]} for model in MODELS}
JUDGEBENCH = {"pair_id": "1", "source": "mmlu-pro", "label": "A>B", "question": "q", "response_A": "a", "response_B": "b"}
REWARDMATH = [
    {"problem_id": "1", "problem": "q", "solution_type": kind, "eval_solution": [kind]} for kind in ("chosen", "rejected")
]
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b", "subset": "hep-go"}
FILES = {
    "ppe_correctness": ("mmlu.jsonl", PPE),
    "pandalm": ("testset-v1.json", [PANDALM]),
    "gsm8k_pairs": ("example_model_solutions.jsonl", GSM8K),
    "realmistake": ("gpt.jsonl", {"input": "q", "llm_response": "r", "label": "error", "metadata": {"id": "1"}}),
    "judgebench": ("judgebench.jsonl", JUDGEBENCH),
    "alpacaeval": ("a.jsonl", {"instruction": "q", "output_1": "a", "output_2": "b"}),
    "ppe_preference": ("a.jsonl", {"question_id": 1, "winner": "model_a", "prompt": "q", "response_1": "a", "response_2": "b"}),
    "rewardbench": ("a.jsonl", PAIR),
    "rewardbench2": ("a.jsonl", PAIR | {"subset": "Math", "id": "1", "chosen": ["a"], "rejected": ["b", "c", "d"]}),
    "rewardmath": ("RewardMATH_direct.json", REWARDMATH),
    "rm_bench": ("chat_filtered.json", [{"id": 1, "prompt": "q", "chosen": ["a"] * 3, "rejected": ["b"] * 3}]),
    "rmb": (
        "a.jsonl",
        {"pair_uid": 1, "conversation_input": [{"role": "user", "content": "q"}], "chosen": "a", "reject": "b"},
    ),
}


def read(directory, name, field=None, value=None, on_bad="fatal", report=None):
    file, rows = FILES[name]
    if field:
        rows = [row | {field: value} for row in rows] if isinstance(rows, list) else rows | {field: value}
    (directory / file).write_text(json.dumps(rows) + "\n")
    return catalogue.get(name).read(directory, on_bad, report or DataReport())


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("ppe_correctness", "scores", [10**400, 0], "scores are not all numbers that can be compared"),
        ("ppe_correctness", "scores", [float("nan"), 0], "scores are not all numbers that can be compared"),
        ("ppe_correctness", "sampled_conflict_pairs", [], "no pairs of a right and a wrong response"),
        ("ppe_correctness", "sampled_conflict_pairs", [["x", None]], r"a pair is not of two of 2 responses \(\['x', None\]\)"),
        ("ppe_correctness", "sampled_conflict_pairs", [[float("inf"), 0]], "a pair is not of two of 2 responses"),
        ("pandalm", "cmp_key", ["a"], r"cmp_key is not a string \(list\)"),
        ("gsm8k_pairs", MODELS[1], None, r"not an object with 'is_correct' \(None\)"),
        ("realmistake", "metadata", 3, r"metadata is not an object \(3\)"),
        ("pandalm", "input", float("nan"), r"input is not a string \(float\)"),
        ("realmistake", "metadata", {"id": float("nan")}, r"id is neither a text nor a finite number \(nan\)"),
        ("realmistake", "metadata", {"llm_response_model": float("inf")}, "llm_response_model is neither a text"),
        ("rewardbench2", "id", None, r"id is neither a text nor a finite number \(None\)"),
        ("rewardbench2", "subset", "Ties", "the id of an item of Ties is not ref:<number> or tied:<number>"),
    ],
)
def test_what_is_wrong_with_a_field_is_said(tmp_path, name, field, value, message):
    assert len(read(tmp_path, name)) == 1
    with pytest.raises(InputError, match=message):
        read(tmp_path, name, field, value)


NAMES = [("judgebench", field) for field in ("original_id", "response_model")] + [("alpacaeval", "dataset"), ("pandalm", "idx")]
NAMES += [(name, "question_id") for name in ("ppe_correctness", "ppe_preference")] + [("rmb", "pair_uid")]
NAMES += [("rewardmath", field) for field in ("problem_id", "subject", "answer")]
NAMES += [(name, "id") for name in ("rewardbench", "rewardbench2", "rm_bench")]


@pytest.mark.parametrize(("name", "field"), NAMES)
def test_a_gap_in_the_data_is_no_name(tmp_path, name, field):
    """It would be read as the text nan, and be shown or written as that."""
    assert len(read(tmp_path, name, field, 7)) == 1
    for value in (float("nan"), -float("inf"), True, [1]):
        with pytest.raises(InputError, match=f"{field} is neither a text nor a finite number"):
            read(tmp_path, name, field, value)
        report = DataReport()
        (tmp_path / "skip").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="holds no items"):
            read(tmp_path / "skip", name, field, value, "skip", report)
        assert list(report.skipped) == [f"{field} is neither a text nor a finite number"]


def test_the_number_of_an_item_of_ties_is_one_that_can_be_read(tmp_path):
    for number in ("12", "9" * 18):
        assert len(read(tmp_path, "rewardbench2", "id", f"ref:{number}")) == 1
    item = Item(f"Ties/ref:{'9' * 5000}", 4, subset="Ties", label=1)
    with pytest.raises(InputError, match="the id of an item of Ties is not ref:<number>"):
        catalogue.get("rewardbench2").complete(item)


def test_whole_numbers_may_have_a_point(tmp_path):
    (item,) = read(tmp_path, "ppe_correctness", "sampled_conflict_pairs", [[1.0, 0.0]])
    assert item.pairs == ((0, 1),) and item.label == {"scores": [1.0, 0.0], "pairs": [[1, 0]]}


def test_a_label_without_pairs_says_nothing():
    with pytest.raises(InputError, match="no pairs of a right and a wrong response"):
        sampled.complete(Item("a", 2, label={"scores": [1, 0], "pairs": []}))
