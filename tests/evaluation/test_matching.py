"""Recorded votes on items of a benchmark's data, and votes that say themselves what they are on."""

import dataclasses

import pytest

from spct_jax.errors import InputError
from spct_jax.evaluation import figures, matching
from spct_jax.evaluation.benchmarks import base
from spct_jax.evaluation.benchmarks.base import Item
from spct_jax.evaluation.recorded import Recorded, Vote

BENCHMARK = base.Benchmark("plain", "Plain", "", "", "", read=None, blocks=None, best_first=True, fixed=False)


def votes(*rows):
    return tuple(Vote(row) for row in rows)


def test_votes_are_joined_with_items_and_with_pairs_of_them():
    items = [Item("a", 2, 0), Item("b", 3, best=1)]
    recorded = [Recorded("b", votes((1, 2, 3))), Recorded("a", votes((1, 2)))]
    assert [answer.votes[0].scores for answer in matching.join(items, recorded, "f")] == [(1, 2), (1, 2, 3)]
    pairs = base.as_pairs(items)
    assert [pair.id for pair in pairs] == ["a", "b/1-0", "b/1-2"]
    by_pair = matching.join(items, [Recorded(pair.id, votes((2, 1))) for pair in pairs], "f")[1]
    assert by_pair.strict == 1 and by_pair.compare(1, 2) == 1 and figures.most_votes([by_pair]) == 1

    for recorded, message in [
        ([Recorded("a", votes((1, 2)))], "f: no scores of an item \\('b'; 2 are wanted, 1 are there\\)"),
        ([Recorded("c", votes((1, 2)))], "f: scores of an unknown item \\('c'\\)"),
        ([Recorded("a", votes((1, 2))), Recorded("b", votes((1, 2)))], "f: item 'b': a row of 2 scores for 3 responses"),
        ([Recorded("a", (Vote(decision=2),)), Recorded("b", votes((1, 2, 3)))], "f: item 'a': decision 2 for 2 responses"),
        ([Recorded("a", votes((1, 2))), Recorded("b/1-0", votes((1, 2)))], "f: no scores of an item \\('b/1-2'"),
        ([Recorded("a", (Vote((1, 2), order=(0, 1, 2)),)), Recorded("b", votes((1, 2, 3)))], "an order of 3 for 2 responses"),
    ]:
        with pytest.raises(InputError, match=message):
            matching.join(items, recorded, "f")


def test_recorded_votes_stand_alone_where_they_say_what_the_data_would():
    alone = matching.stand_alone(BENCHMARK, [Recorded("a", votes((1, 2, 3)), "s", {"best": 2, "label": "x"})], "f")
    assert alone[0].item == Item("a", 3, 2, "s", "x") and alone[0].strict == 1
    assert matching.stand_alone(BENCHMARK, [Recorded("a", (Vote(decision=0),))], "f")[0].item == Item("a", 2, 0)
    for line, message in [
        ({"best": 2}, "f: item 'a': best is not the index of one of 2"),
        ({"n": 0}, "n is not a number"),
        ({"label": {"original_id": [float("nan")]}}, "f: item 'a': label is, or holds, a number that is not finite"),
    ]:
        with pytest.raises(InputError, match=message):
            matching.stand_alone(BENCHMARK, [Recorded("a", (Vote(decision=0),), "", line)], "f")


def test_a_line_that_says_of_many_responses_needs_no_memory_for_them():
    for line in ({"n": 10**12}, {"n": 4097}, {"n": 10**30, "best": 10**29}, {"n": True}):
        one = Recorded("a", (Vote(decision=0),), "", line, "f:7")
        with pytest.raises(InputError, match=r"f:7: item 'a': n is not a number of responses from 1 to 4,096 \("):
            matching.stand_alone(BENCHMARK, [one], "f")
    for id in (f"a/0-{10**12}", "a/4096-0", f"a/0-1{'0' * 9999}"):
        with pytest.raises(InputError, match="f:7: item 'a/.*: a pair of more than 4,096 responses"):
            matching.stand_alone(BENCHMARK, [Recorded(id, votes((2, 1)), where="f:7")], "f")
    wide = matching.stand_alone(BENCHMARK, [Recorded("a", votes((0,) * 5000), "", {"n": 5000})], "f")
    most = matching.stand_alone(BENCHMARK, [Recorded("a", (Vote(decision=0),), "", {"n": 4096})], "f")
    assert (wide[0].item.n, most[0].item.n) == (5000, 4096)


def test_an_id_may_leave_out_its_subset_where_that_is_clear():
    items = [Item("x/1", 2, 0, "x"), Item("y/1", 2, 0, "y"), Item("y/2", 2, 0, "y")]
    one, two = Recorded("1", votes((1, 2)), "x"), Recorded("y/1", votes((1, 2)))
    answers = matching.join(items, [one, two, Recorded("2", votes((3, 4)))], "f")
    assert [answer.item.id for answer in answers] == ["x/1", "y/1", "y/2"] and answers[2].totals == (3, 4)
    deep = [Item(f"{subset}/1", 2, 0, subset) for subset in ("a/x", "a/y")]
    answers = matching.join(deep, [Recorded("1", votes((1, 2)), "y"), Recorded("1", votes((3, 4)), "x")], "f")
    assert [answer.totals for answer in answers] == [(3, 4), (1, 2)]
    for wrong, message in [
        (Recorded("1", votes((1, 2))), "f: 2 items have this id, so it needs its subset \\('1', as in 'x/1'\\)"),
        (Recorded("1", votes((1, 2)), "y"), "f: scores of an item that has some already \\('y/1'\\)"),
        (Recorded("3", votes((1, 2)), "y", where="f:7"), "f:7: scores of an unknown item \\('3'\\)"),
    ]:
        with pytest.raises(InputError, match=message):
            matching.join(items, [one, two, wrong], "f")


def test_recorded_pairs_are_put_together_and_none_may_be_missing():
    def pair(id, **line):
        return Recorded(id, votes((2, 1)), "s", line)

    (answer,) = matching.stand_alone(BENCHMARK, [pair("a/0-1"), pair("a/0-2")], "f")
    assert (answer.item.id, answer.item.n, answer.item.best, answer.strict) == ("a", 3, 0, 1)
    for lines, message in [
        ([pair("a/0-1"), pair("a/0-3")], "f: item 'a': no scores of pair 'a/0-2'"),
        ([pair("a/0-1"), pair("a/0-2"), pair("a/1-2")], "f: item 'a': scores of pairs that it does not have"),
        ([pair("a/0-1", best=1), pair("a/0-2")], "the first of a pair must be the better one"),
        ([pair("a/0-1"), pair("a/1-1")], "f: item 'a/1-1': a pair of one response with itself"),
    ]:
        with pytest.raises(InputError, match=message):
            matching.stand_alone(BENCHMARK, lines, "f")


def test_items_of_two_responses_may_have_ids_like_those_of_pairs():
    benchmark = dataclasses.replace(BENCHMARK, fixed=True)
    assert [one.item.id for one in matching.stand_alone(benchmark, [Recorded("a/0-1", votes((2, 1)))], "f")] == ["a/0-1"]
    with pytest.raises(InputError, match="f: item 'b': 3 responses instead of 2"):
        matching.stand_alone(benchmark, [Recorded("b", votes((1, 2, 3)))], "f")


def test_single_responses_are_all_scored_or_all_decided_about():
    benchmark, one, other = dataclasses.replace(BENCHMARK, responses=1), votes((7,)), (Vote(decision=1),)
    items = [Item(id, 1) for id in "abc"]
    mixed = [Recorded("a", (Vote(),)), Recorded("b", one), Recorded("c", other, where="f:3")]
    for made in (lambda: matching.join(items, mixed, "f"), lambda: matching.stand_alone(benchmark, mixed, "f")):
        with pytest.raises(InputError, match="f:3: item 'c' has decisions where item 'b' has scores"):
            made()
    assert len(matching.join(items, [Recorded(id, other) for id in "abc"], "f")) == 3


def test_votes_on_what_the_data_has_besides_are_passed_over():
    items, more = [Item("x/1", 2, 0, "x")], [Recorded("x/1", votes((1, 2))), Recorded("2", votes((1, 2)), "x")]
    assert [answer.item.id for answer in matching.join(items, more, "f", {"x/2"})] == ["x/1"]
    with pytest.raises(InputError, match="f: scores of an unknown item \\('2'\\)"):
        matching.join(items, more, "f", {"x/3"})
