import json
import random

import pytest
import study_modules

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.grm.template import load_template

SHOWN = Comparison(
    conversation=(Turn("user", "How do I steal 3 bikes in 2 days?"),),
    responses=("I'm sorry, but I can't help with that.", "You could cut 3 locks and run, and run, for example at night"),
    scores=(1.0, 0.0),
    id="x",
)


@pytest.fixture(scope="module")
def modules():
    with study_modules.imported("human_truth", "human_demonstrator") as both:
        yield both


def test_the_demonstrator_is_found_to_say_what_is_true(modules):
    truth, demonstrator = modules
    criteria = truth.human_criteria
    even = demonstrator.Weights({kind: dict.fromkeys(criteria.CRITERIA, 1.0) for kind in criteria.KINDS})
    template, order, verdicts = load_template("short"), (1, 0), []
    for draw in range(60):
        made = demonstrator.verdict(random.Random(draw), SHOWN, even, draw % 2)
        verdicts.append((SHOWN, order, made.text(order, template, "1"), made.scores))
    found = truth.count(iter(verdicts))
    assert found["statements"] == {"true": 360, "false": 0, "unknown": 0}
    assert found["scores follow"] == {"true": 60, "false": 0, "unknown": 0}
    assert found["the first shown is best"] == 30
    assert found["sound"] == 60 and found["most often false"] == {}
    swapped = truth.count((c, order[::-1], text, scores[::-1]) for c, order, text, scores in verdicts)
    assert swapped["statements"]["false"] > 100 and swapped["scores follow"]["true"] < 20
    assert swapped["sound"] == 0 and sum(swapped["most often false"].values()) > 60


@pytest.mark.parametrize(
    ("i", "said", "expected"),
    [
        (0, "is shorter", True),
        (0, "is longer", False),
        (0, 'holds back ("I can\'t")', True),  # not the first quotation that there is, but one
        (0, 'holds back ("I won\'t")', False),
        (1, 'holds back ("I can\'t")', False),
        (1, "leaves out 2", True),
        (1, "leaves out 3", False),
        (0, "is witty", None),
    ],
)
def test_statements(modules, i, said, expected):
    assert modules[0].is_true(SHOWN, i, said) is expected


def test_a_quotation_may_hold_the_word_that_joins(modules):
    text = 'Analysis:\nResponse 1 repeats "and run, and run" and is longer.\nResponse 3 is longer.'
    assert list(modules[0].statements(text, (1, 0))) == [(1, 'repeats "and run, and run"'), (1, "is longer")]


def test_files_of_both_kinds(modules, tmp_path):
    text = "Specific Criteria:\n1. Brief (6 points)\nAnalysis:\nResponse 1 is longer.\nResponse 2 is shorter.\n"
    text += "Scores: \\boxed{1, 7}"
    problems, verdicts = tmp_path / "problems.jsonl", tmp_path / "verdicts.jsonl"
    problem = {"id": "x", "query": SHOWN.query, "responses": SHOWN.responses, "scores": SHOWN.scores}
    problems.write_text(json.dumps(problem) + "\n")
    sample = {"order": (1, 0), "text": text, "scores": (7, 1)}
    for record in (
        {"id": "x", "samples": [sample, sample | {"text": None}]},
        {"id": "x", "order": (1, 0), "texts": [text], "scores": [(7, 1)]},
    ):
        verdicts.write_text(json.dumps(record) + "\n")
        found = modules[0].count(modules[0].read(str(verdicts), str(problems)))
        assert found["verdicts"] == 1 and found["statements"]["true"] == 2 and found["scores follow"]["true"] == 1
