import time

import pytest

from spct_jax.grm.parse import parse, parse_choice, unshuffle


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


def test_range():
    assert parse(r"\boxed{1}", 1, low=0, high=1) == (1,)
    assert parse(r"\boxed{0}", 1, low=0, high=1) == (0,)
    assert parse(r"\boxed{2}", 1, low=0, high=1) is None
    assert parse(r"\boxed{-2, 0}", 2, low=-2, high=2) == (-2, 0)


@pytest.mark.parametrize("unit", ["x", r"\boxed{", r"\boxed ", "\\", "{", "}", "\\boxed{" + "1," * 50 + "}", ","])
def test_a_megabyte_is_quick(unit):
    start = time.monotonic()
    assert parse(unit * (10**6 // len(unit)), 2) is None
    assert parse("\\boxed" + unit * (10**6 // len(unit)), 2) is None
    assert time.monotonic() - start < 5


def test_choice():
    assert parse_choice(r"Best: \boxed{2}", 2) == 1
    for text in (r"\boxed{0}", r"\boxed{3}", r"\boxed{1, 2}", "2"):
        assert parse_choice(text, 2) is None


def test_unshuffle():
    assert unshuffle((7, 8, 9), (2, 0, 1)) == (8, 9, 7)
    with pytest.raises(ValueError, match="2 scores for an order of 3"):
        unshuffle((1, 2), (0, 1, 2))
