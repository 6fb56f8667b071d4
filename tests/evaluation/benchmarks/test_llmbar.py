"""LLMBar: both orders, by hand, and its own files."""

import pytest
from shared_data import shared

from spct_jax.data.jsonl import ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation import figures
from spct_jax.evaluation.benchmarks import catalogue
from spct_jax.evaluation.benchmarks.base import Answer, Item
from spct_jax.evaluation.recorded import Vote

LLMBAR = catalogue.get("llmbar")


def answers(*rows, subset="Natural", scores=True):
    """One answer per row of two games; the right response is always the second."""
    made = []
    for index, games in enumerate(rows):
        votes = tuple(Vote(game) if scores else Vote(decision=game) for game in games)
        made.append(Answer(Item(str(index), 2, 1, subset), votes))
    return made


def test_both_orders_by_hand():
    # Right twice; right and wrong; wrong twice; a tie and right; unread twice.
    rows = [((1, 2), (1, 2)), ((1, 2), (2, 1)), ((2, 1), (2, 1)), ((1, 1), (1, 2)), (None, None)]
    found = figures.compute(LLMBAR, answers(*rows), intervals=False).table["all"]
    expected = {"official": 4 / 10, "given": 2 / 5, "swapped": 2 / 5, "agreement": 3 / 5, "both": 1 / 5}
    assert {column: found[column].value for column in expected} == pytest.approx(expected)
    # As one vote over both orders: 1, a tie, 0, 1, no verdict.
    assert found["paper"].value == pytest.approx((1 + 1 / 2 + 0 + 1 + 1 / 2) / 5) and found["strict"].value == 2 / 5


def test_decisions_alone_are_enough():
    rows = [(1, 1), (0, "tie"), ("tie", "tie"), (None, None), (None, 1)]
    found = figures.compute(LLMBAR, answers(*rows, scores=False), intervals=False).table["all"]
    assert found["official"].value == pytest.approx(3 / 10) and found["agreement"].value == pytest.approx(3 / 5)


def test_with_one_order_per_item_there_is_no_official_figure():
    made = [Answer(Item("a", 2, 1), (Vote((1, 2), order=(0, 1)),)), Answer(Item("b", 2, 1), (Vote((1, 2), order=(1, 0)),))]
    assert set(figures.compute(LLMBAR, made).table["all"]) == {"paper", "strict"}


def test_aggregates():
    made = answers(((1, 2),) * 2) + answers(((1, 2),) * 2, ((2, 1),) * 2, ((2, 1),) * 2, subset="Adversarial/GPTOut")
    table = figures.compute(LLMBAR, made, intervals=False).table
    values = {name: columns["official"].value for name, columns in table.items()}
    assert values == pytest.approx({"all": 1 / 2, "mean of subsets": 2 / 3, "Adversarial, mean of subsets": 1 / 3})


def test_the_published_files():
    report = ReadReport()
    items = LLMBAR.read(shared("data/llmbar/LLMBar"), "fatal", report)
    sizes = {"Natural": 100, "Neighbor": 134, "GPTInst": 92, "GPTOut": 47, "Manual": 46}
    assert report.used == len(items) == 419 and all(item.comparison.n == 2 for item in items)
    assert {name: sum(item.subset.endswith(name) for item in items) for name in sizes} == sizes
    assert sum(item.best == 0 for item in items if item.subset == "Natural") == 42


def test_a_label_and_a_best_response_must_agree():
    complete = LLMBAR.complete
    assert complete(Item("a", 2, label=2)).best == complete(Item("a", 2, 1, label=2)).best == 1
    with pytest.raises(InputError, match="'best' is 0, and by its label 2 it is 1"):
        complete(Item("a", 2, 0, label=2))
