"""Principles and reference answers that the items of a benchmark are judged by."""

import pytest

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.errors import InputError
from spct_jax.evaluation import conditions
from spct_jax.evaluation.benchmarks import base
from spct_jax.evaluation.benchmarks.base import Item


def item(id, n=2, **fields):
    shown = Comparison(conversation=[Turn("user", "q")], responses=[f"r{i}" for i in range(n)], id=id)
    return Item(id, n, 0, comparison=shown, **fields)


def test_principles_of_all_items_or_by_id():
    items = [item("x/1"), item("x/2"), Item("x/3", 2, 0, unjudgeable="empty response")]
    assert [one.comparison.principles for one in conditions.with_principles(items, "be kind", "f")[:2]] == ["be kind"] * 2
    found = conditions.with_principles(items, {"x/2": "be short", "other": "no"}, "f")
    assert [one.comparison and one.comparison.principles for one in found] == [None, "be short", None]
    with pytest.raises(InputError, match="^f: holds principles of none of the items$"):
        conditions.with_principles(items, {"other": "no"}, "f")


def test_pairs_have_the_principles_of_their_item_or_their_own():
    pairs = base.as_pairs([item("a", 3)])
    found = conditions.with_principles(pairs, {"a": "of the item", "a/0-2": "of the pair"}, "f")
    assert [(one.id, one.comparison.principles) for one in found] == [("a/0-1", "of the item"), ("a/0-2", "of the pair")]


def test_reference_answers_are_shown_where_there_are_some():
    found = conditions.with_references([item("a", 3, reference="42"), item("b")], "--reference")
    assert [one.comparison.reference for one in (*base.as_pairs(found[:1]), found[1])] == ["42", "42", None]
    with pytest.raises(InputError, match="^--reference: the benchmark's data holds no reference answers$"):
        conditions.with_references([item("b")], "--reference")
