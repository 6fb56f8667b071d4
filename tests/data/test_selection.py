"""What is left of a source: no copies, nothing of a benchmark, no prompt in two splits; and a word on all that is dropped."""

import numpy as np
import pytest

from spct_jax.data import contamination, duplicates, fingerprints, selection, splits
from spct_jax.data.comparison import Comparison
from spct_jax.data.contamination import Benchmarks
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.index import Records

LONG = "Name the seven colours of the rainbow in the order in which they appear, please, and add why."


def comparison(query, responses=("yes", "no"), scores=(1, 0), id="x", before=()):
    return Comparison(conversation=[*before, {"role": "user", "content": query}], responses=responses, scores=scores, id=id)


def records_of(values, stamp="s"):
    return Records(values.__getitem__, range(len(values)), stamp, lambda number: f"f.jsonl:{number + 1}")


def test_copies_that_differ_in_case_white_space_and_character_forms_have_one_fingerprint():
    one = fingerprints.of(comparison("Who wrote  Faust?", ("Goethe\n", "Kafka")))
    assert fingerprints.of(comparison(" who WROTE\u00a0\uff26aust?", ("kafka", "goethe"), (0, 1))) == one
    prompt, whole = fingerprints.of(comparison("who wrote faust?", ("goethe", "marlowe")))
    assert prompt == one[0] and whole != one[1]
    assert fingerprints.of(comparison("Who wrote Faustus?"))[0] != prompt
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    shown = fingerprints.of(Demonstration(turns, ("d",)))
    assert shown == fingerprints.of(comparison("C", ("D",), (1,), before=turns[:2]))
    assert shown[0] != fingerprints.of(comparison("a", ("d",), (1,)))[0]
    assert all(-(2**63) <= digest < 2**63 for digest in (*one, *shown))


def test_words_are_found_in_any_script():
    assert fingerprints.words("It's  3.14, \u00c4rger_!") == ["it", "s", "3", "14", "\u00e4rger_"]
    assert fingerprints.words("\u6771\u4eac is hot") == ["\u6771", "\u4eac", "is", "hot"]


def test_splits_have_their_fractions_of_the_prompts_and_share_none():
    prompts = np.repeat([fingerprints.of(comparison(f"question {i}"))[0] for i in range(4000)], 2)
    which = splits.split_of(prompts, (0.9, 0.05, 0.05))
    assert (which[::2] == which[1::2]).all()
    assert np.bincount(which[::2]) / 4000 == pytest.approx([0.9, 0.05, 0.05], abs=0.012)
    some = np.arange(1, 8000, 3)
    assert (splits.split_of(prompts[some], (0.9, 0.05, 0.05)) == which[some]).all()
    fewer = splits.split_of(prompts, (0.8, 0.0, 0.2))
    assert set(fewer.tolist()) == {0, 2} and (fewer[which == 2] == 2).all()
    edges = np.array([-1, -(2**63), 0, 2**62])
    assert splits.split_of(edges, (0.5, 0.5, 0.0)).tolist() == [1, 1, 0, 0]


def test_the_first_of_equal_digests_is_found():
    assert duplicates.first_of(np.array([5, -1, 5, 7, -1, 5])).tolist() == [0, 1, 0, 3, 1, 0]


def test_the_first_of_several_copies_is_kept_and_the_others_are_told(tmp_path):
    swapped = comparison("a", ("no", "yes"), id="3")
    values = [comparison("a", id="1"), comparison("A ", id="2"), swapped, comparison("b", id="4")]
    (left,), dropped = selection.divide("train", records_of(values), tmp_path / "x", deduplicate=True)
    assert [c.id for c in left] == ["1", "4"] and left.where(1) == "f.jsonl:4"
    of = {"id": "1", "where": "f.jsonl:1"}
    assert [*dropped] == [
        {"field": "train", "id": "2", "where": "f.jsonl:2", "reason": "duplicate", "of": of, "same_best": True},
        {"field": "train", "id": "3", "where": "f.jsonl:3", "reason": "duplicate", "of": of, "same_best": False},
    ]


def test_a_source_is_divided_by_prompt(tmp_path):
    values = [comparison(f"q {i % 50}", (f"a {i}", "b"), id=str(i)) for i in range(200)]
    records = records_of(values)
    parts, dropped = selection.divide("train", records, tmp_path / "x", deduplicate=False, fractions=(0.5, 0.25, 0.25))
    prompts = [{c.query for c in part} for part in parts]
    assert not len(dropped) and sorted(int(c.id) for part in parts for c in part) == list(range(200))
    assert all(prompts) and sum(map(len, prompts)) == 50
    assert selection.divide("train", records, tmp_path / "y", deduplicate=False)[0][0] is records


def benchmark(*items):
    return Benchmarks(["bench"], [records_of([comparison(item, id=f"b{i}") for i, item in enumerate(items)])])


def found(query, *items, **more):
    match = benchmark(*items).find(comparison(query, **more))
    return None if match is None else match.words


def test_thirteen_words_in_a_row_are_found_wherever_they_stand():
    thirteen = "name the seven colours of the rainbow in the order in which they"
    assert found(f"Hello! {LONG.upper()} Bye", LONG) == thirteen
    assert found(f"x {thirteen} y", "Some other prompt", LONG) == thirteen
    assert found("the seven colours of the rainbow in the order in which they", LONG) is None
    assert found(LONG.replace("rainbow", "world"), LONG) is None
    assert found("so: " + LONG.partition(" ")[2], LONG) == "the seven colours of the rainbow in the order in which they appear"
    earlier = [{"role": "user", "content": LONG}, {"role": "assistant", "content": "b"}]
    assert found("ok", LONG, before=earlier) == thirteen
    spoken = [{"role": "system", "content": LONG}, {"role": "user", "content": "a"}, {"role": "assistant", "content": LONG}]
    assert found("ok", LONG, before=spoken) is None


def test_a_short_prompt_is_found_only_as_a_whole_query():
    assert found("hello,  THERE", "Hello there!") == "hello there"
    assert found("hello there you", "Hello there!") is None
    assert found("ok", "Hello there!", before=[{"role": "user", "content": "hello there"}]) is None
    assert found("?!", "...") is None and benchmark().find(comparison("a")) is None


def test_two_digests_that_agree_by_accident_are_no_match(monkeypatch):
    monkeypatch.setattr(contamination.zlib, "crc32", lambda data: 7)
    assert found(LONG.replace("rainbow", "world"), LONG) is None


def test_what_stands_in_a_benchmark_is_dropped_and_told(tmp_path):
    values = [comparison("fine", id="1"), comparison(f"{LONG} Thanks.", id="2"), comparison("hi", id="3")]
    benchmarks = benchmark("Hi!", LONG)
    assert len(benchmarks) == 2 and benchmarks.digest != benchmark("Hi!").digest
    left, dropped = selection.without_benchmarks("train", records_of(values), benchmarks, tmp_path / "x")
    assert [c.id for c in left] == ["1"]
    lines = [*dropped]
    told = [(line["id"], line["where"], line["item"]["id"]) for line in lines]
    assert told == [("2", "f.jsonl:2", "b1"), ("3", "f.jsonl:3", "b0")]
    assert lines[0]["item"] == {"benchmark": "bench", "id": "b1", "where": "f.jsonl:2"}
    assert lines[0]["reason"] == "stands in a benchmark" and lines[1]["words"] == "hi"
