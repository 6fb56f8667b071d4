import time

import pytest

from spct_jax.grm.parse import parse, parse_choice, parse_lenient, principles, unshuffle


@pytest.mark.parametrize(
    ("text", "n", "scores"),
    [
        (r"Scores: \boxed{8, 3}", 2, (8, 3)),
        (r"Scores: \\boxed{8,3}.", 2, (8, 3)),
        (r"\boxed{1, 1} and then \boxed{10,  7 , 2}", 3, (10, 7, 2)),
        ("\\boxed {\n5\n}", 1, (5,)),
        (r"\boxed{\boxed{8, 3}}", 2, (8, 3)),
        (r"\boxed{08, 3}", 2, (8, 3)),
        ("no box", 2, None),
        ("", 1, None),
        (r"boxed{8, 3}", 2, None),
        (r"\boxed{8}", 2, None),
        (r"\boxed{8, 3, 1}", 2, None),
        (r"\boxed{8, 3,}", 2, None),
        (r"\boxed{}", 1, None),
        (r"\boxed{,}", 2, None),
        (r"\boxed{8, 11}", 2, None),
        (r"\boxed{0, 3}", 2, None),
        (r"\boxed{-8, 3}", 2, None),
        (r"\boxed{8.0, 3}", 2, None),
        (r"\boxed{+8, 3}", 2, None),
        (r"\boxed{8_0, 3}", 2, None),
        (r"\boxed{8; 3}", 2, None),
        (r"\boxed{eight, 3}", 2, None),
        (r"\boxed{\text{8}, 3}", 2, None),
        ("\\boxed{\u0668, 3}", 2, None),
        ("\\boxed{\uff18, 3}", 2, None),
        ("\\boxed{\u00b2, 3}", 2, None),
        (r"\boxed{8, 3", 2, None),
        (r"\boxed{8, 3} but then \boxed{8", 2, None),
        (r"\boxed{8, 3} but then \boxed{9}", 2, None),
        ("\\boxed{" + "9" * 100_000 + ", 3}", 2, None),
    ],
)
def test_last_box(text, n, scores):
    assert parse(text, n) == scores


PARTS = ("Analysis", "Scores")


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("Analysis:\nfine\nScores: \\boxed{8, 3}", (8, 3)),
        ("Scores:\nso \\boxed{8, 3}", (8, 3)),
        ("**Scores:**\n\\boxed{8, 3}", (8, 3)),
        ("### Scores:\n\\boxed{8, 3}", (8, 3)),
        ("Scores: \\boxed{1, 2}\nno,\nScores: \\boxed{8, 3}", (8, 3)),
        ("Analysis:\nResponse 2 says \\boxed{1, 10}", None),
        ("Analysis: \\boxed{1, 10}\nScores: none", None),
        ("Scores: \\boxed{1, 10}\nno,\nScores: none", None),
        ("Response 2 says Scores: \\boxed{1, 10}", None),
        ("> Scores: \\boxed{1, 10}", None),
        ("Scores \\boxed{8, 3}", None),
        ("Scores of both: \\boxed{8, 3}", None),
        ("\\boxed{8, 3}", None),
    ],
)
def test_a_box_outside_the_last_part_is_no_verdict(text, scores):
    assert parse(text, 2, parts=PARTS) == scores
    choice = text.replace("8, 3", "2").replace("1, 10", "1").replace("1, 2", "1")
    assert parse_choice(choice, 2, PARTS) == (None if scores is None else 1)


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        # As the paper prints critiques of its 27B model.
        ("**Scores:**\n- **Response 1**: 8\n\n**Scores: \\boxed{8, 8}**", (8, 8)),
        ("### Scores:\n- **Overall Score**: 7\n\n### Output: \\boxed{10, 7}", (10, 7)),
        ("Scores: \\boxed{9, 5}", (9, 5)),
        ("Scores: \\\\boxed{ 9 ,5 }", (9, 5)),
        ("Scores: [9, 5]", (9, 5)),
        ("no label, \\boxed{9, 5}", (9, 5)),
        ("\\boxed{9, 5} or rather [8, 6].", (8, 6)),
        ("Scores: \\boxed{9.5, 5.0}", (9.5, 5)),
        ("Scores: \\boxed{12, 0}", (10, 1)),
        ("Scores: \\boxed{-3, .5}", (1, 1)),
        ("Scores: \\boxed{9, good, 5}", (9, 5)),
        ("Scores: \\boxed{9, 5} []", (9, 5)),
        ("Scores: \\boxed{9, 5} and \\boxed{8, ", (9, 5)),
        ("Scores: [Response 1: \\boxed{9, 5}", None),
        ("Scores: \\boxed{9, 5} [both]", None),
        ("Scores: \\boxed{9, nan}", None),
        ("Scores: \\boxed{9, 1e0}", None),
        ("Scores: \\boxed{9}", None),
        ("Scores: \\boxed{9, 5, 1}", None),
        ("Analysis: \\boxed{10, 1}\nScores: equal", None),
        ("Scores: \\boxed{9, 5", None),
        ("", None),
    ],
)
def test_lenient_reading(text, scores):
    found = parse_lenient(text, 2, parts=("Specific Criteria", "Analysis", "Scores"))
    assert found == scores and [type(score) for score in found or ()] == [type(score) for score in scores or ()]


def test_range():
    assert parse(r"\boxed{1}", 1, low=0, high=1) == (1,)
    assert parse(r"\boxed{0}", 1, low=0, high=1) == (0,)
    assert parse(r"\boxed{2}", 1, low=0, high=1) is None
    assert parse(r"\boxed{-2, 0}", 2, low=-2, high=2) == (-2, 0)


@pytest.mark.parametrize(
    "unit", ["x", "[", r"\boxed{", r"\boxed ", "\\", "{", "}", "\\boxed{" + "1," * 50 + "}", ",", "\n#", "\nScores:"]
)
def test_a_megabyte_is_quick(unit):
    start = time.process_time()
    assert parse(unit * (10**6 // len(unit)), 2) is None
    assert parse("\\boxed" + unit * (10**6 // len(unit)), 2) is None
    assert parse(unit * (10**6 // len(unit)), 2, parts=("A", unit)) is None
    parse_lenient(unit * (10**6 // len(unit)), 2, parts=("A", "Scores"))
    assert time.process_time() - start < 5


def test_choice():
    assert parse_choice(r"Best: \boxed{2}", 2) == 1
    for text in (r"\boxed{0}", r"\boxed{3}", r"\boxed{1, 2}", "2"):
        assert parse_choice(text, 2) is None


def test_unshuffle():
    assert unshuffle((7, 8, 9), (2, 0, 1)) == (8, 9, 7)
    with pytest.raises(ValueError, match="2 scores for an order of 3"):
        unshuffle((1, 2), (0, 1, 2))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Criteria:\n- a: 60%\n- b\nAnalysis:\nx\nScores: \\boxed{1}", "- a: 60%\n- b"),
        ("**Criteria:** short **b**\n## Analysis:\nx", "** short **b**"),
        ("Criteria: a\nAnalysis: b\nAnalysis: c", "a"),
        ("Analysis:\nx\nCriteria:\na\nAnalysis:\ny", "a"),
        ("Criteria:\n\nAnalysis:\nx", None),
        ("Criteria:\na, and no more", None),
        ("a\nAnalysis:\nx", None),
        ("", None),
    ],
)
def test_principles_of_a_critique(text, found):
    assert principles(text, ("Criteria", "Analysis", "Scores")) == found
