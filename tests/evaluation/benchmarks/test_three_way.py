"""Three classes: verdicts with and without a band, macro scores, labels."""

import by_hand
import pytest

from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import three_way
from spct_jax.evaluation.benchmarks.base import Item


def test_verdicts_and_the_band_of_a_tie():
    verdicts = [three_way.verdict(by_hand.scored(None, row)) for row in [(2, 1), (1, 2), (2, 2), None]]
    assert verdicts == [0, 1, "tie", None]
    # Three points over two votes that could be read: 1.5 a vote.
    votes = by_hand.scored(None, (5, 3), None, (3, 2))
    assert three_way.verdict(votes, band=1) == 0 and three_way.verdict(votes, band=1.5) == "tie"
    assert three_way.verdict(by_hand.decided(None, "tie", "tie", 0)) == 0 and three_way.verdict(None) is None


def test_macro_scores_by_hand():
    truth, said = [0, 0, 1, "tie"], [0, 1, 1, 1]
    # Precision 1, 1/3, 0; recall 1/2, 1, 0; F1 2/3, 1/2, 0.
    assert three_way.macro_scores(truth, said) == pytest.approx(((4 / 3) / 3, (3 / 2) / 3, (2 / 3 + 1 / 2) / 3))
    assert three_way.macro_scores([0, 1], [0, 1]) == pytest.approx((1, 1, 1))


def test_a_label_is_needed():
    assert three_way.complete(Item("x", 2, label="tie")).best is None
    assert three_way.complete(Item("x", 2, label=1)).best == 1 and three_way.complete(Item("x", 2, best=0)).label == 0
    for item in (Item("x", 2), Item("x", 2, label=2), Item("x", 2, label=True), Item("x", 3, best=0)):
        with pytest.raises(InputError, match="no 'label'"):
            three_way.complete(item)
