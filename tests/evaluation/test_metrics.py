"""Accuracy from votes, by hand."""

import time

import numpy as np
import pytest

from spct_jax.evaluation import bootstrap, metrics, recorded


def row(best, *samples, n=2, meta=None):
    meta = meta or [None] * len(samples)
    return {
        "id": "a",
        "n": n,
        "best": best,
        "single": n == 1,
        "samples": [{"scores": s, "meta": m} for s, m in zip(samples, meta, strict=True)],
    }


def test_worked_example_of_the_paper():
    # Figure 3 of the SPCT paper: plain 17 against 25, samples 1 and 3 by the meta RM 5 against 13.
    samples = [[1, 5], [5, 6], [4, 8], [7, 6]]
    example = row(1, *samples, meta=[1.3, 0.2, 1.6, -15.7])
    assert metrics.vote(example, 4) == (17, 25)
    assert metrics.vote(example, 4, k_meta=2) == (5, 13)


def test_expected_scores_vote_where_they_are_asked_for():
    """Sums of floats that are equal but for rounding are a tie."""
    example = row(0, [5, 5], [6, 6], None, meta=[2.0, 1.0, None])
    for sample, expected in zip(example["samples"], ([0.1, 0.3], [0.2, 0.0], None), strict=True):
        sample["expected"] = expected
    assert metrics.vote(example, 3) == (11, 11)
    decimals = row(0, [8.9, 9.7], [2.7, 6.5], [6.0, 1.4])
    assert metrics.tally([decimals], 3).accuracy == 0.5
    assert metrics.vote(example, 3, read="expected") == (0.3, 0.3)
    assert metrics.vote(example, 3, k_meta=1, read="expected") == (0.1, 0.3)
    tally = metrics.tally([example], 2, read="expected")
    assert tally.accuracy == 0.5 and tally.tie_rate == 1


def test_votes_are_a_prefix_and_ties_share_credit():
    rows = [
        row(0, [5, 5], [6, 1]),  # a tie at first, settled by the second
        row(1, [9, 1], [1, 9]),  # wrong at first, a tie of two at k = 2
        row(2, None, [1, 2, 3], n=3),  # nothing at first
    ]
    one, two = metrics.tally(rows, 1), metrics.tally(rows, 2)
    np.testing.assert_allclose(one.credit, [1 / 2, 0, 1 / 3])
    np.testing.assert_array_equal(one.tied, [True, False, False])
    np.testing.assert_allclose(two.credit, [1, 1 / 2, 1])
    assert two.accuracy == pytest.approx(2.5 / 3) and two.tie_rate == pytest.approx(1 / 3)


def test_one_guided_vote_is_the_plain_one():
    rows = [row(0, [1, 9], [9, 1], meta=[-5.0, 5.0])]
    assert metrics.tally(rows, 1, k_meta=1).credit == metrics.tally(rows, 1).credit == [0.0]
    assert metrics.tally(rows, 2, k_meta=1).credit == [1.0]
    assert [metrics.guided_votes(k) for k in (1, 2, 8, 32)] == [1, 1, 4, 16]
    assert metrics.guided_votes(50, 0.58) == 29  # the product of these floats is less


def test_single_responses_are_judged_by_the_majority():
    rows = [row(0, [1], [1], [0], n=1), row(0, [1], [0], None, n=1), row(0, None, None, None, n=1)]
    np.testing.assert_allclose(metrics.single_credit(rows, [1, 1, 0], 3), [1, 1 / 2, 1 / 2])
    np.testing.assert_allclose(metrics.single_credit(rows, [0.0, 1.0, 0.0], 1), [0, 1, 1 / 2])


def test_malformed_rate_and_agreement():
    rows = [row(0, [2, 1], [1, 2], [3, 1]), row(0, [4, 4], None, [4, 4])]
    assert recorded.malformed_rate(metrics.all_votes(rows)) == pytest.approx(1 / 6)
    assert recorded.truncated_rate(metrics.all_votes(rows)) is None  # verdicts of an earlier version do not say
    for number, r in enumerate(rows):
        r["samples"] = [sample | {"truncated": sample["scores"] is None or number == 1} for sample in r["samples"]]
    assert recorded.truncated_rate(metrics.all_votes(rows)) == pytest.approx(1 / 2)
    # Of the first's three pairs one agrees; the second's only pair of ties agrees half the time.
    assert metrics.agreement(rows) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert metrics.agreement([row(0, [2, 1], None)]) is None


def test_a_whole_evaluation_is_scored_quickly():
    rng = np.random.default_rng(0)
    scores = rng.integers(1, 11, (2000, 32, 3)).tolist()
    meta = rng.normal(size=(2000, 32)).tolist()
    rows = [row(0, *s, n=3, meta=m) for s, m in zip(scores, meta, strict=True)]
    start = time.process_time()
    for k in (1, 8, 32):
        bootstrap.interval(metrics.tally(rows, k).credit)
        bootstrap.interval(metrics.tally(rows, k, metrics.guided_votes(k)).credit)
    assert time.process_time() - start < 2
