"""Which ways of judging there are, and what is said about each."""

import pytest

from spct_jax.errors import InputError
from spct_jax.evaluation import measures
from spct_jax.evaluation.benchmarks import base, catalogue
from spct_jax.evaluation.benchmarks.base import Answer, Block, Item
from spct_jax.evaluation.measures import GREEDY, SAMPLED
from spct_jax.evaluation.recorded import Vote


def plain(answers):
    subsets = [answer.item.subset for answer in answers]
    return [Block(subsets, base.standard(answers), {"all": base.micro(subsets)})]


BENCHMARK = base.Benchmark("plain", "Plain", "", "", "", read=None, blocks=plain)


def answers(*rows, subsets="sst", meta=None):
    """One answer per row of votes; a vote is its scores, or None."""
    made = []
    for index, row in enumerate(rows):
        votes = (Vote(scores, meta=meta and meta[i], truncated=scores is None) for i, scores in enumerate(row))
        made.append(Answer(Item(str(index), 2, 0, subsets[index]), tuple(votes)))
    return made


WON, LOST, TIED = (5, 1), (1, 5), (3, 3)


def test_every_k_and_k_meta():
    sampled = answers(*[[WON] * 8] * 3, meta=[0.5] * 8)
    names = [measure.name for measure in measures.choose({GREEDY: answers([WON, WON]), SAMPLED: sampled}, [1, 4, 8], [])]
    assert names == ["greedy", "greedy@2", "vote@1", "vote@4", "vote@8", "meta@4/2", "meta@8/4"]
    names = [measure.name for measure in measures.choose({SAMPLED: sampled}, [1, 4, 8], [1, 4])]
    assert names == ["vote@1", "vote@4", "vote@8", "meta@4/1", "meta@8/1", "meta@8/4"]
    assert [m.name for m in measures.choose({SAMPLED: answers([WON], [WON, WON])}, [], [])] == ["all votes"]
    assert [m.name for m in measures.choose({SAMPLED: answers([WON, WON])}, [], [])] == ["vote@2"]
    by_pair = {(0, 1): (Vote(WON), Vote(WON)), (0, 2): (Vote(WON),)}
    assert [m.name for m in measures.choose({SAMPLED: [Answer(Item("a", 3, 0), by_pair=by_pair)]}, [], [])] == ["all votes"]
    for ks, k_metas, message in (([9], [], "--k: 9 is more than the 8 votes"), ([], [2], "--k_meta: the votes have no meta")):
        with pytest.raises(InputError, match=message):
            measures.choose({SAMPLED: sampled if ks else answers([WON])}, ks, k_metas)
    assert [measure.name for measure in measures.choose({SAMPLED: sampled}, [], [7])] == ["vote@8", "meta@8/7"]
    for ks, k_metas, message in (
        ([1, 4], [1, 4], r"--k_meta: 4 is not below any number of votes \(1, 4\)"),
        ([], [8], r"--k_meta: 8 is not below any number of votes \(8\)"),
    ):
        with pytest.raises(InputError, match=message):
            measures.choose({SAMPLED: sampled}, ks, k_metas)


def test_figures_of_votes_and_guided_votes_by_hand():
    # The second vote is the one to trust. Item 0: won, then lost; item 1: lost, then unread; item 2: tied, then won.
    found = measures.compute(BENCHMARK, {SAMPLED: answers([WON, LOST], [LOST, None], [TIED, WON], meta=[0, 1])}, [1, 2])
    one, two, guided = (found["measures"][name] for name in ("vote@1", "vote@2", "meta@2/1"))
    assert one["table"]["all"]["paper"]["value"] == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert two["table"]["all"]["paper"]["value"] == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert guided["table"]["all"]["paper"]["value"] == pytest.approx((0 + 0 + 1) / 3)
    assert two["table"]["all"]["strict"]["value"] == pytest.approx(1 / 3)
    assert [one["tie_rate"], two["tie_rate"], guided["tie_rate"]] == pytest.approx([1 / 3, 1 / 3, 0])
    # What could not be read is never kept by the meta rewards, but it was drawn.
    assert one["malformed_rate"] == 0 and two["malformed_rate"] == guided["malformed_rate"] == pytest.approx(1 / 6)
    assert two["by_subset"]["s"] == {"items": 2, "tie_rate": 0.5, "malformed_rate": 0.25, "truncated_rate": 0.25}
    assert found["chance"] == 0.5 and found["position"] == {}
    assert {name: sorted(points) for name, points in found["by_k"].items()} == {
        "vote": ["1", "2"],
        "meta, half of k": ["1", "2"],
    }
    assert found["by_k"]["vote"]["2"] == two["table"]["all"]["paper"]


def test_other_powers_of_two_are_in_the_curve_only():
    found = measures.compute(BENCHMARK, {SAMPLED: answers(*[[WON, LOST, WON, WON, WON]] * 3)}, [5])
    assert list(found["measures"]) == ["vote@5"] and list(found["by_k"]["vote"]) == ["1", "2", "4", "5"]
    assert measures.compute(BENCHMARK, {SAMPLED: answers([WON])}, [1])["by_k"] == {}


def chance(name, *items, by_pair=False):
    pairs = [{pair: (Vote(WON),) for pair in item.pairs} if by_pair else None for item in items]
    rows = [() if by_pair else (Vote((1,) * item.n),) for item in items]
    answers = [Answer(item, votes, pairs) for item, votes, pairs in zip(items, rows, pairs, strict=True)]
    return measures.compute(catalogue.get(name), {SAMPLED: answers})["chance"]


def test_chance_is_what_the_headline_of_a_judge_that_guesses_is():
    cells = [f"{kind}/{goal}/a" for kind in ("BoN_set", "Pairwise_set") for goal in ("Helpfulness", "Harmlessness")]
    items = [Item(f"{index}", 4 if "BoN" in cell else 2, 0, cell) for index, cell in enumerate([*cells, *cells[2:] * 4])]
    assert chance("rmb", *items) == pytest.approx((1 / 4 + 1 / 2) / 2)  # of the cells, not of the ten pairs and two others
    assert chance("rewardmath", Item("a", 10, 0)) == pytest.approx(1 / 10)
    assert chance("rewardmath", Item("a", 10, 0), by_pair=True) == pytest.approx(1 / 2**9)
    assert chance("realmistake", Item("a", 1, label="error"), Item("b", 1, label="no_error")) == 1 / 2
    assert chance("pandalm", Item("a", 2, 0, label=0), Item("b", 2, None, label="tie")) == 1 / 2
    assert chance("alpacaeval", Item("a", 2)) is None
    right, several = Item("1", 4, 0, "Math"), Item("tied:1", 4, None, "Ties", 2)
    assert chance("rewardbench2", right) == 1 / 4 and chance("rewardbench2", right, several) is None
