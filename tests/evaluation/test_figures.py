"""Recorded votes joined with items, cut to k votes, averaged with weights, resampled."""

import numpy as np
import pytest

from spct_jax.evaluation import bootstrap, figures
from spct_jax.evaluation.benchmarks import base, catalogue
from spct_jax.evaluation.benchmarks.base import Answer, Block, Item, Statistic
from spct_jax.evaluation.recorded import Vote


def plain(answers):
    subsets = [answer.item.subset for answer in answers]
    weights = {"all": base.micro(subsets), "mean": base.macro(subsets)}
    return [Block(subsets, base.standard(answers), weights)]


BENCHMARK = base.Benchmark("plain", "Plain", "", "", "", read=None, blocks=plain, best_first=True, fixed=False)


def votes(*rows):
    return tuple(Vote(row) for row in rows)


def test_credits_by_hand():
    item = Item("a", 3, best=0)
    won, tied, lost, nothing = (Answer(item, votes(row)) for row in [(3, 2, 1), (3, 3, 1), (1, 2, 1), None])
    assert [answer.expected for answer in (won, tied, lost, nothing)] == [1, 1 / 2, 0, 1 / 3]
    assert [answer.strict for answer in (won, tied, lost, nothing)] == [1, 0, 0, 0]
    assert [answer.ties for answer in (won, tied, lost, nothing)] == [0, 1, 0, 0]
    assert Answer(item, votes((3, 3, 3))).expected == pytest.approx(1 / 3)
    # By pairs: one tie of two pairs is a coin, an unread pair as well; both must be won.
    pairs = Answer(item, by_pair={(0, 1): votes((2, 1)), (0, 2): votes((1, 1))})
    assert (pairs.expected, pairs.strict, pairs.ties) == (1 / 2, 0, 1 / 2)
    pairs = Answer(item, by_pair={(0, 1): votes(None), (0, 2): votes((1, 1))})
    assert (pairs.expected, pairs.strict) == (1 / 4, 0)


def test_two_games_are_told_apart_by_order_or_by_turns():
    item = Item("a", 2, best=0)
    rows = Vote((1, 2)), Vote((3, 4))
    first, second = Answer(item, rows).games()
    assert (first.totals, second.totals) == ((1, 2), (3, 4))
    ordered = Vote((1, 2), order=(1, 0)), Vote((3, 4), order=(1, 0))
    first, second = Answer(item, ordered).games()
    assert first is None and second.totals == (4, 6)
    first, second = Answer(item, rows[:1]).games()
    assert first.totals == second.totals == (1, 2)


@pytest.mark.parametrize(
    ("name", "label", "columns"),
    [
        ("llmbar", None, ("official", "agreement", "both")),
        ("judgebench", None, ("official", "both")),
        ("evalbiasbench", None, ("official", "both")),
        ("auto_j", 0, ("official", "consistency")),
    ],
)
def test_two_games_of_a_judge_without_fault(name, label, columns):
    """Which votes are trusted, and what cannot be read elsewhere, makes no game lost."""
    items, orders = [Item(str(i), 2, 0, "Natural", label) for i in range(8)], [(0, 1), (1, 0)] * 4
    trusted = [[0.1 + ((order == (0, 1)) == bool(index % 2)) for order in orders] for index in range(8)]
    answers = [
        Answer(item, tuple(Vote((9, 1), order=order, meta=meta) for order, meta in zip(orders, metas, strict=True)))
        for item, metas in zip(items, trusted, strict=True)
    ]
    benchmark = catalogue.get(name)
    # The four that are trusted most saw one order.
    assert {vote.order for vote in figures.cut(answers, 8, 4)[0].votes} == {(1, 0)}
    for k, k_meta in ((8, 4), (8, 3), (2, 1), (8, None)):
        found = figures.compute(benchmark, answers, k, k_meta, intervals=False)
        assert {column: next(iter(found.table.values()))[column].value for column in columns} == dict.fromkeys(columns, 1)
    # A game of which no vote could be read was played, and lost.
    half = tuple(vote._replace(scores=None) if vote.order == (1, 0) else vote for vote in answers[0].votes)
    first, second = figures.cut([Answer(items[0], half)], 8, 4)[0].games()
    assert first.totals == (18, 2) and second.votes and second.totals is None
    # One that was not played is no loss either: of an item in one order only, or of one vote, there is nothing to say.
    alone = [Answer(item, (Vote((9, 1), order=(index % 2, 1 - index % 2)),)) for index, item in enumerate(items)]
    for unplayed in (alone[:1], [Answer(Item("unread", 2, 0, "Natural", label), (Vote(),))]):
        both = figures.compute(benchmark, [*alone, *unplayed], intervals=False).table
        assert not {"consistency", "agreement", "both"} & next(iter(both.values())).keys()


def test_figures_of_every_k_come_from_the_same_votes():
    answers = [
        Answer(Item("a", 2, 0, "x"), (Vote((5, 5), truncated=False), Vote((6, 1), truncated=False))),
        Answer(Item("b", 2, 1, "x"), (Vote((9, 1), truncated=False), Vote((1, 9), truncated=False))),
        Answer(Item("c", 2, 1, "y"), (Vote(truncated=True), Vote((1, 2), truncated=False))),
    ]
    one, two = (figures.compute(BENCHMARK, answers, k) for k in (1, 2))
    assert one.table["all"]["paper"].value == pytest.approx(1 / 3) and one.table["all"]["strict"].value == 0
    assert one.table["mean"]["paper"].value == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert (one.tie_rate, one.malformed_rate, one.truncated_rate, one.unread) == pytest.approx((1 / 3, 1 / 3, 1 / 3, 1))
    assert two.table["all"]["paper"].value == pytest.approx(2.5 / 3) and two.unread == 0
    assert two.subsets["x"]["strict"].value == 1 / 2 and two.sizes == {"x": 2, "y": 1}
    assert two.to_json()["table"]["all"]["strict"]["value"] == pytest.approx(2 / 3)


def test_the_interval_of_a_weighted_mean_draws_within_subsets():
    rng = np.random.default_rng(0)
    subsets = ["x"] * 200 + ["y"] * 50
    credits = np.concatenate([rng.integers(0, 2, 200), rng.integers(0, 2, 50)]).astype(float)
    block = Block(subsets, {"official": credits}, {"mean": base.macro(subsets), "x": {"x": 1.0}})
    benchmark = base.Benchmark("b", "B", "", "", "", read=None, blocks=lambda _: [block])
    found = figures.compute(benchmark, []).table
    errors = [credits[:200].std() / np.sqrt(200), credits[200:].std() / np.sqrt(50)]
    half = 1.96 * np.hypot(*errors) / 2
    assert found["mean"]["official"].high - found["mean"]["official"].low == pytest.approx(2 * half, rel=0.08)
    low, high = bootstrap.interval(credits[:200])
    assert (found["x"]["official"].low, found["x"]["official"].high) == pytest.approx((low, high), abs=0.02)


def test_a_figure_that_is_no_mean_is_resampled_too():
    values = np.arange(100.0)
    statistic = Statistic("all", "median", [np.arange(100)], lambda rows: float(np.median(values[rows])))
    block = Block(["x"] * 100, {}, {}, [statistic])
    benchmark = base.Benchmark("b", "B", "", "", "", read=None, blocks=lambda _: [block])
    figure = figures.compute(benchmark, []).table["all"]["median"]
    assert figure.value == 49.5 and 30 < figure.low < 45 < 54 < figure.high < 70
    assert figures.compute(benchmark, [], intervals=False).table["all"]["median"] == figures.Figure(49.5)


def test_weights():
    assert base.micro("aab") == {"a": 2 / 3, "b": 1 / 3}
    assert base.micro("aab", {"a": 1, "b": 3, "absent": 5}) == {"a": 1 / 4, "b": 3 / 4}
    assert base.macro("aab") == {"a": 1 / 2, "b": 1 / 2}
    assert base.mean_of([{"a": 1.0}, {"a": 1 / 2, "b": 1 / 2}]) == {"a": 3 / 4, "b": 1 / 4}


def test_a_figure_that_is_not_defined_is_left_out():
    statistic = Statistic("all", "area", [np.arange(3)], lambda rows: float("nan"))
    benchmark = base.Benchmark("b", "B", "", "", "", read=None, blocks=lambda _: [Block(["x"] * 3, {}, {}, [statistic])])
    assert figures.compute(benchmark, []).table == {}
