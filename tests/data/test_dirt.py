"""Dirty files of every format: one line each, with file and row; fatal, or left out and counted by reason."""

import gzip
import itertools
import json
import pathlib
import tempfile

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spct_jax.data.kinds import DECIDED
from spct_jax.data.sources import open_source, read_comparisons
from spct_jax.errors import InputError

GOOD = {"prompt": "q", "chosen": "a", "rejected": "b"}
DIRT = {
    "chosen and rejected are the same text": {"rejected": "a"},
    "empty chosen": {"chosen": " \n"},
    "empty rejected": {"rejected": ""},
    "empty prompt": {"prompt": ""},
    "prompt is not a list of turns": {"prompt": 3},
    "chosen is neither a text nor a list of turns": {"chosen": 3},
    "rejected is not a string": {"rejected": None},
}
"""Reason -> what is wrong with the row."""
OWN = {"query": "q", "responses": ["a", "b"], "scores": [1, 0]}
OWN_DIRT = {
    "no unique best response": {"scores": [1, 1]},
    "empty response": {"responses": ["a", ""]},
    "response is not a string": {"responses": ["a", 3]},
    "scores of the wrong length": {"scores": [1]},
    "no scores, so no best response": {"scores": None},
    "the best response is the same text as another": {"responses": ["a", "a\n"]},
    "query is not a string": {"query": ["q"]},
    "duplicate id": {"id": "same"},
}
FORMATS = ["x.jsonl", "x.jsonl.gz", "x.json", "x.json.gz"]


def write(path, rows):
    """The rows in the format that the file's name says."""
    lines = ".jsonl" in path.name
    content = ("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows)).encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def where(path, number):
    """What stands before a message about a row, counted from 0."""
    return f"{path}:{number + 1}: " if ".jsonl" in path.name else f"{path}: row {number + 1}: "


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(FORMATS),
    own=st.booleans(),
    choice=st.lists(st.one_of(st.none(), st.integers(0, 7)), min_size=1, max_size=8),
)
def test_dirty_rows_are_named_or_counted(name, own, choice):
    good, dirt = (OWN, OWN_DIRT) if own else (GOOD, DIRT)
    reasons = [None if i is None else [*dirt][i % len(dirt)] for i in choice]
    rows = [good if reason is None else good | dirt[reason] for reason in reasons]
    ids = itertools.accumulate(reason == "duplicate id" for reason in reasons)
    # The first record with the id is good.
    bad = [reason and (reason != "duplicate id" or seen > 1) for reason, seen in zip(reasons, ids, strict=True)]
    with tempfile.TemporaryDirectory() as directory:
        path = write(pathlib.Path(directory) / name, rows)
        source = str(path) if own and ".jsonl" in name else f"{'comparison' if own else 'pairs'}:{path}"
        counts = {reason: sum(r == reason and b for r, b in zip(reasons, bad, strict=True)) for reason in dirt}
        if all(bad):
            with pytest.raises(InputError, match=f"holds no comparisons .{counts[reasons[0]]} skipped: {reasons[0]}"):
                open_source(source, DECIDED, on_bad="skip")
            return
        records, report = open_source(source, DECIDED, on_bad="skip")
        assert report.skipped == {reason: count for reason, count in counts.items() if count}
        assert (report.read, report.used) == (len(rows), len(records)) == (len(rows), bad.count(False) + bad.count(None))
        numbers = [number for number, b in enumerate(bad) if not b]
        assert [records.where(i) + ": " for i in range(len(records))] == [where(path, number) for number in numbers]
        assert all(record.best is not None for record in records)
        if any(bad):
            with pytest.raises(InputError) as raised:
                open_source(source, DECIDED)
            first = next(number for number, b in enumerate(bad) if b)
            assert str(raised.value).startswith(where(path, first) + reasons[first]) and "\n" not in str(raised.value)
        else:
            assert open_source(source, DECIDED)[1] == report


def test_dirty_rows_of_parquet(tmp_path):
    rows = [GOOD, GOOD | {"rejected": "a"}, GOOD | {"chosen": ""}, GOOD | {"prompt": None}, GOOD]
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
    records, report = open_source(f"pairs:{path}", DECIDED, on_bad="skip")
    assert [records.where(i) for i in range(2)] == [f"{path}: row 1", f"{path}: row 5"]
    assert report.skipped == {
        "chosen and rejected are the same text": 1, "empty chosen": 1, "prompt is not a string": 1,
    }  # fmt: skip
    with pytest.raises(InputError, match="x.parquet: row 2: chosen and rejected are the same text"):
        open_source(f"pairs:{path}", DECIDED)


@pytest.mark.parametrize("on_bad", ["fatal", "skip"])
def test_what_is_wrong_with_a_whole_file_is_always_fatal(tmp_path, on_bad):
    """Nobody can tell how much of it is lost."""
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"prompt": "q", "chosen": "a"}]), path)
    whole = path.read_bytes()
    cases = {
        "x.parquet": (whole, r"x.parquet: no column 'rejected' \(it has prompt, chosen\)"),
        "cut.parquet": (whole[:-20], "cut.parquet: not a parquet file that can be read"),
        "text.parquet": (b"prompt,chosen\n", "text.parquet: not a parquet file that can be read"),
        "cut.jsonl.gz": (gzip.compress(json.dumps(GOOD).encode() * 99)[:-9], r"cut.jsonl.gz:\d+: damaged or truncated gzip"),
        "plain.json.gz": (b"[]", "plain.json.gz: damaged or truncated gzip"),
        "gzip.jsonl": (gzip.compress(json.dumps(GOOD).encode()), "gzip.jsonl: not JSON Lines but gzip data"),
        "parquet.jsonl": (whole, "parquet.jsonl: not JSON Lines but a parquet file"),
        "wide.jsonl": (json.dumps(GOOD).encode("utf-16"), "wide.jsonl: not JSON Lines but UTF-16 text"),
        "array.jsonl": (json.dumps([GOOD]).encode(), "array.jsonl: not JSON Lines but a JSON array"),
        "array.jsonl.gz": (gzip.compress(json.dumps([GOOD], indent=1).encode()), "array.jsonl.gz: not JSON Lines but a "),
        "pretty.jsonl": (json.dumps(GOOD, indent=1).encode(), "pretty.jsonl: not JSON Lines but JSON objects over several"),
        "cut.json": (json.dumps([GOOD, GOOD]).encode()[:-3], "cut.json:1: not JSON"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_source(f"pairs:{tmp_path / name}", DECIDED, on_bad=on_bad)


def test_equal_responses_are_bad_where_one_must_be_the_best_and_nowhere_else(tmp_path):
    """As in the layouts, blanks around a text are no part of it. Equal texts that are all worse contradict nothing."""
    rows = [OWN | {"responses": texts, "scores": scores} for texts, scores in (
        (["a", "b", "b"], [3, 2, 1]), (["b", " a", "c", "a\n"], [0, 2, 1, 0]), (["a", "A"], [1, 0]),
    )]  # fmt: skip
    path = write(tmp_path / "x.jsonl", rows)
    records, report = read_comparisons(path, on_bad="skip", need_best=True)
    assert [record.id for record in records] == ["1", "3"]
    assert report.skipped == {"the best response is the same text as another": 1}
    with pytest.raises(InputError) as raised:
        read_comparisons(path, need_best=True)
    assert str(raised.value) == f"{path}:2: the best response is the same text as another (numbers 2 and 4)"
    assert [record.responses for record in read_comparisons(path)[0]] == [tuple(row["responses"]) for row in rows]


def test_a_plain_file_that_was_cut_loses_its_last_row_only(tmp_path):
    path = write(tmp_path / "x.jsonl", [GOOD, GOOD, GOOD])
    path.write_bytes(path.read_bytes()[:-5])
    records, report = open_source(f"pairs:{path}", DECIDED, on_bad="skip")
    assert len(records) == 2 and report.skipped == {"not JSON": 1}
    with pytest.raises(InputError, match="x.jsonl:3: not JSON"):
        open_source(f"pairs:{path}", DECIDED)


def test_duplicate_ids_of_two_files_are_named(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / name, [OWN | {"id": "x"}, OWN])
    with pytest.raises(InputError, match=r"b.jsonl:1: duplicate id \('x', first at .*a.jsonl:1\)"):
        open_source(f"jsonl:{tmp_path}/*.jsonl", DECIDED)
    records, report = open_source(f"jsonl:{tmp_path}/*.jsonl", DECIDED, on_bad="skip")
    assert [record.id for record in records] == ["x", "a.jsonl:2", "b.jsonl:2"] and report.skipped == {"duplicate id": 1}
