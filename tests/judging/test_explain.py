"""A verdict told to a person."""

import pytest

from spct_jax.data.comparison import Comparison
from spct_jax.judging import explain


def test_a_verdict_explained():
    asked = Comparison(conversation=[{"role": "user", "content": "Hi\x1b[2J\nthere"}], responses=["good", "bad"], scores=[1, 0])
    samples = [
        {"order": [1, 0], "scores": [8, 3], "meta": 0.5, "text": "Specific Criteria:\nwarmth", "truncated": False},
        {"order": [0, 1], "scores": None, "meta": None, "text": "\ud800", "truncated": False},
        {"order": [0, 1], "scores": None, "meta": None, "text": "Scores: \\boxed{9, 1} so", "truncated": True},
        {"order": [0, 1], "scores": [5, 9], "meta": -1.25, "text": "z", "truncated": False},
    ]
    record = {"id": "x", "scores": [8, 3], "best": 0, "tied": [], "k": 4, "valid": 2, "truncated": 1, "samples": samples}
    assert explain.explanation(asked, record) == "\n".join(
        [
            "User",
            "  Hi\ufffd[2J",
            "  there",
            "",
            "Response 1",
            "  good",
            "",
            "Response 2",
            "  bad",
            "",
            "Sample 1 (responses shown in the order 2, 1)",
            "  Specific Criteria:",
            "  warmth",
            "  => response 1: 8, response 2: 3; meta reward 0.500",
            "",
            "Sample 2 (responses shown in the order 1, 2)",
            "  \ufffd",
            "  => no scores that can be read",
            "",
            "Sample 3 (responses shown in the order 1, 2)",
            "  Scores: \\boxed{9, 1} so",
            "  => cut at the limit of tokens, not read",
            "",
            "Sample 4 (responses shown in the order 1, 2)",
            "  z",
            "  => response 1: 5, response 2: 9; meta reward -1.250",
            "",
            "votes     response 1  response 2  meta reward",
            "sample 1           8           3        0.500",
            "sample 2           -           -            -",
            "sample 3           -           -            -",
            "sample 4           5           9       -1.250",
            "total              8           3",
            "(The total is of the samples that the meta reward model trusts most.)",
            "",
            "Response 1 wins by 5, 8 to 3; 2 of 4 samples could be read.",
            "The scores given by people: response 1: 1, response 2: 0.",
        ]
    )


def test_expected_scores_are_told_and_counted():
    asked = Comparison(conversation=[{"role": "user", "content": "Hi"}], responses=["good", "bad"])
    common = {"meta": None, "text": "z", "truncated": False}
    samples = [
        {"order": [1, 0], "scores": [8, 3], "expected": [7.5, 3.25], **common},
        {"order": [0, 1], "scores": None, "expected": None, **common},
    ]
    record = {"id": "x", "scores": [7.5, 3.25], "best": 0, "tied": [], "k": 2, "valid": 1, "truncated": 0, "samples": samples}
    *_, first, second, table, outcome = explain.explanation(asked, record).split("\n\n")
    assert "=> response 1: 8, response 2: 3; expected: response 1: 7.5, response 2: 3.25" in first and "no scores" in second
    assert table.splitlines()[1:] == [
        "sample 1         7.5        3.25",
        "sample 2           -           -",
        "total            7.5        3.25",
    ]
    assert outcome == "Response 1 wins by 4.25, 7.5 to 3.25; 1 of 2 samples could be read."


@pytest.mark.parametrize(
    ("scores", "ending"),
    [
        (None, "No verdict: 0 of 0 samples could be read."),
        ([4], "The response gets 4; 1 of 0 samples could be read."),
        ([4, 4, 1], "A tie: responses 1 and 2 share the highest total, 4; 3 of 0 samples could be read."),
        # Expected scores are summed to the sixth decimal, and totals that differ are told apart.
        ([160.123457, 160.123456], "Response 1 wins by 1e-06, 160.123457 to 160.123456; 2 of 0 samples could be read."),
        ([4, 4, 4], "A tie: responses 1, 2 and 3 share the highest total, 4; 3 of 0 samples could be read."),
    ],
)
def test_how_an_explanation_ends(scores, ending):
    n = len(scores or "xy")
    asked = Comparison(conversation=[{"role": "user", "content": "q"}], responses=["r"] * n)
    record = {"scores": scores, "valid": len(scores or ""), "samples": []}
    assert explain.explanation(asked, record).splitlines()[-1] == ending
