"""Rows of somebody else's making: whatever stands in a field, one line says what is wrong with it."""

import json

import pytest

from spct_jax.data.jsonl import ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import catalogue, sampled
from spct_jax.evaluation.benchmarks.base import Item

PPE = {"question_id": "1", "prompt": "p", "scores": [True, False], "sampled_conflict_pairs": [[0, 1]]}
PPE |= {"response_1": "a", "response_2": "b"}
PANDALM = {"idx": 1, "instruction": "q", "response1": "a", "response2": "b", "cmp_key": "a_b"}
PANDALM |= {f"annotator{number}": 1 for number in (1, 2, 3)}
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
GSM8K = {"question": "q"} | {model: {"solution": model, "is_correct": model == MODELS[0]} for model in MODELS}
FILES = {
    "ppe_correctness": ("mmlu.jsonl", PPE),
    "pandalm": ("testset-v1.json", [PANDALM]),
    "gsm8k_pairs": ("example_model_solutions.jsonl", GSM8K),
    "realmistake": ("gpt.jsonl", {"input": "q", "llm_response": "r", "label": "error", "metadata": {"id": "1"}}),
}


def read(directory, name, field=None, value=None):
    file, rows = FILES[name]
    if field:
        rows = [rows[0] | {field: value}] if isinstance(rows, list) else rows | {field: value}
    (directory / file).write_text(json.dumps(rows) + "\n")
    return catalogue.get(name).read(directory, "fatal", ReadReport())


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
    ],
)
def test_what_is_wrong_with_a_field_is_said(tmp_path, name, field, value, message):
    assert len(read(tmp_path, name)) == 1
    with pytest.raises(InputError, match=message):
        read(tmp_path, name, field, value)


def test_whole_numbers_may_have_a_point(tmp_path):
    (item,) = read(tmp_path, "ppe_correctness", "sampled_conflict_pairs", [[1.0, 0.0]])
    assert item.pairs == ((0, 1),) and item.label == {"scores": [1.0, 0.0], "pairs": [[1, 0]]}


def test_a_label_without_pairs_says_nothing():
    with pytest.raises(InputError, match="no pairs of a right and a wrong response"):
        sampled.complete(Item("a", 2, label={"scores": [1, 0], "pairs": []}))
