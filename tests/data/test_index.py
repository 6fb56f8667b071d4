"""Records by offset: found in parts as in one piece, read when asked for, looked for again only when the file has changed."""

import gzip
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import parsed
import pytest

from spct_jax.data import index, jsonl
from spct_jax.data.formats import json_lines, open_rows
from spct_jax.data.index import Records
from spct_jax.data.kinds import DECIDED
from spct_jax.data.sources import open_source, read_comparisons
from spct_jax.errors import InputError


def record(**change):
    return {"query": "q", "responses": ["a", "b"], "scores": [1, 2]} | change


def content(*records):
    return b"".join(json.dumps(item).encode() + b"\n" for item in records)


GOOD = content(record(id="x"), record(), record(query="\u00fc" * 30)) + b"\n  \n" + content(record(id="7"))
BAD = [
    GOOD + content(record(id="x", scores=[1, 1]), record(scores=[1, 1]), record(id="2")) + b"{\n" + content(record(id="y")),
    content(record(id="5"), record(scores=[1, 1])) + GOOD + b'{"query": "no newline"',
    b"\n{\n" + GOOD,
]


@pytest.mark.parametrize("text", [GOOD, *BAD])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 1000])
def test_lines_found_in_parts_are_those_of_the_file(tmp_path, text, count):
    """Parts that end within a line or hold none, of one file and of two."""
    paths = [tmp_path / "x", tmp_path / "y"]
    for path in paths:
        path.write_bytes(text)
    found, ends = [], [2 * len(text) * i // count for i in range(count + 1)]
    lines = np.zeros(2, int)
    for begin, end in zip(ends, ends[1:], strict=False):
        part = json_lines.scan(paths, np.array([len(text)] * 2), begin, end)
        found += zip(part["files"], part["lines"] + lines[part["files"]], part["offsets"], strict=True)
        lines += part["counts"]
    want, every = [], text.split(b"\n")
    for file in range(2):
        starts = np.cumsum([0, *(len(line) + 1 for line in every)])
        want += [(file, i + 1, starts[i]) for i, line in enumerate(every) if line.strip()]
    assert found == want


@pytest.mark.parametrize("on_bad", ["skip", "fatal"])
@pytest.mark.parametrize("text", [GOOD, *BAD])
@pytest.mark.parametrize("count", [2, 3, 8, 30])
def test_parts_of_a_file_together_are_the_file(tmp_path, text, on_bad, count):
    """Errors and reports are those of a single reader."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(text)
    rows = open_rows(str(path))

    def read(number):
        return index.read_row(rows, DECIDED.own, DECIDED, DECIDED.made_by(DECIDED.own), number)

    ends = [len(rows) * i // count for i in range(count + 1)]
    scans = [index.scan(read, begin, end, on_bad) for begin, end in zip(ends, ends[1:], strict=False)]
    try:
        comparisons, want = read_comparisons(path, on_bad=on_bad, need_best=True)
    except InputError as error:
        with pytest.raises(InputError) as raised:
            index.settle(rows, scans, "comparisons", on_bad, str(path))
        assert str(raised.value) == str(error)
        return
    places, _, report = index.settle(rows, scans, "comparisons", on_bad, str(path))
    assert report == want
    assert [read(row)[0][0].record for row in places] == comparisons


def find(path, directory, on_bad="skip"):
    return open_source(str(path), DECIDED, on_bad=on_bad, directory=directory, name="train")


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_records_are_those_of_the_file(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(BAD[0]) if name.endswith("gz") else BAD[0])
    (tmp_path / "data").mkdir()
    for _ in range(2):
        records, report = find(path, tmp_path / "data")
        assert (list(records), report) == read_comparisons(path, on_bad="skip", need_best=True)
    lines = [1, 2, 3, 6, 9, 11]
    assert [records[1:].where(i) for i in range(len(records) - 1)] == [f"{path}:{line}" for line in lines[1:]]
    with pytest.raises(InputError, match=rf"{name}:7: duplicate id .'x', first on line 1"):
        (tmp_path / "data" / "train.index").unlink()
        find(path, tmp_path / "data", "fatal")


def test_a_file_is_looked_through_once_until_it_changes(tmp_path, monkeypatch):
    path, looked = tmp_path / "x.jsonl", []
    path.write_bytes(GOOD)
    scan = index.scan
    monkeypatch.setattr(index, "scan", lambda *arguments: looked.append(1) or scan(*arguments))
    assert len(find(path, tmp_path)[0]) == len(find(path, tmp_path)[0]) == 4
    assert len(looked) == 1
    path.write_bytes(GOOD + content(record(id="new")))
    assert len(find(path, tmp_path)[0]) == 5


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "flipped", "other arrays", "an array"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_a_damaged_index_is_made_anew(tmp_path, name, damage):
    path, kept = tmp_path / name, tmp_path / "data" / "train.index"
    path.write_bytes(gzip.compress(GOOD) if name.endswith("gz") else GOOD)
    kept.parent.mkdir()
    records, report = find(path, kept.parent)
    whole = kept.read_bytes()
    if damage == "other arrays":
        stamp = np.load(kept)["stamp"]
        np.savez(kept.open("wb"), stamp=stamp, lines=np.zeros(3))
    elif damage == "an array":
        np.save(kept.open("wb"), np.zeros(3))
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
        kept.write_bytes({"empty": b"", "cut": whole[:middle], "garbage": b"PK" + bytes(500), "flipped": flipped}[damage])
    again, same = find(path, kept.parent)
    assert (list(again), same) == (list(records), report)
    assert list(find(path, kept.parent)[0]) == list(records)


def test_an_unpacked_file_that_is_cut_or_gone_is_made_anew(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD))
    records = list(find(path, tmp_path)[0])
    (tmp_path / "train.jsonl").write_bytes(GOOD[:50])
    assert list(find(path, tmp_path)[0]) == records
    (tmp_path / "train.jsonl").unlink()
    assert list(find(path, tmp_path)[0]) == records


def test_a_damaged_survey_is_made_anew(tmp_path):
    kept, records = tmp_path / "x.survey", Records.of([1, 2])
    for damage in (None, b"", b"garbage"):
        if damage is not None:
            kept.write_bytes(damage)
        assert index.survey(records, lambda value: value + 1, kept, "a").tolist() == [2, 3]
    stamp = np.load(kept)["stamp"]
    np.savez(kept.open("wb"), stamp=stamp, found=np.zeros(1, np.int32))
    assert index.survey(records, lambda value: value + 1, kept, "a").tolist() == [2, 3]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_an_endless_line_is_an_error_of_its_own(tmp_path, monkeypatch, name):
    """Neither the lines around it nor their numbers are lost, and it is not held."""
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 100)
    text = content(record()) + b" " * 10_000 + b"\n" + content(record(query="q" * 200), record(id="last"))
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    for read in (find(path, tmp_path), read_comparisons(path, on_bad="skip", need_best=True)):
        assert [c.id for c in read[0]] == ["1", "last"]
        assert read[1].skipped == {"line longer than 100 bytes": 2}
    assert max(len(line) for _, line in jsonl.read_lines(path)) <= 101
    with pytest.raises(InputError, match=":2: line longer than 100 bytes"):
        read_comparisons(path)


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    with pytest.raises(InputError, match="x.jsonl: cannot read the file .No such file"):
        find(path, tmp_path)
    path.write_bytes(GOOD)
    records, _ = find(path, tmp_path)
    path.write_bytes(b" " * 10 + GOOD)
    with pytest.raises(InputError, match="x.jsonl:2: "):
        records[1]
    broken = tmp_path / "x.jsonl.gz"
    broken.write_bytes(gzip.compress(os.urandom(3000))[:-200])
    with pytest.raises(InputError, match=r"x.jsonl.gz:\d+: damaged or truncated gzip"):
        find(broken, tmp_path)


def test_records_are_a_sequence():
    made = []
    records = Records(lambda i: made.append(i) or i * i, [3, 1, 4, 1, 5])
    assert len(records) == 5 and not made
    assert list(records[1:4]) == [1, 16, 1] and records[-1] == 25
    assert list(records[np.array([2, 0])]) == [16, 9]
    assert list(records + Records.of("ab")) == [9, 1, 16, 1, 25, "a", "b"]
    with pytest.raises(IndexError):
        records[5]


def test_a_survey_is_kept_until_something_changes(tmp_path):
    asked = []

    def measure(value):
        asked.append(value)
        return value + 1

    def survey(numbers, stamp):
        records = Records(lambda i: i, numbers, stamp=str(numbers))
        return index.survey(records, measure, tmp_path / "x.survey", stamp).tolist()

    assert survey([1, 2], "a") == survey([1, 2], "a") == [2, 3] and asked == [1, 2]
    assert survey([1, 2], "b") == [2, 3] and len(asked) == 4
    assert survey([7], "b") == [8] and survey([9], "b") == [10]


def test_a_survey_of_other_records_of_the_same_source_is_another(tmp_path):
    records = Records(lambda i: i, range(9), stamp="same")
    for chosen in (np.array([1, 2]), np.array([1, 3]), np.array([3, 1])):
        found = index.survey(records[chosen], lambda value: (value, -value), tmp_path / "x", "a", dtype=np.int64, shape=(2,))
        assert found.tolist() == [[i, -i] for i in chosen] and found.dtype == np.int64


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What `parsed.py` reports of two processes, and how many lines their files have."""
    directory = tmp_path_factory.mktemp("parsed")
    query, long = {"query": "which is longer?", "scores": [1, 2]}, " ".join(["word"] * 400)
    note = {"note": "-" * len(long)}
    comparisons = [query | note | {"responses": [f"a {i}", f"a longer one, {i}"]} for i in range(9)]
    shown = [note | {"turns": [{"role": "user", "content": f"say {i}"}], "completions": [f"said {i}", "no"]} for i in range(9)]
    for name in ("train", "development", "test"):
        (directory / f"{name}.jsonl").write_bytes(content(*comparisons, query | {"responses": [long, "b"]}) + b"{\n")
    for name in ("demonstrations", "general"):
        (directory / f"{name}.jsonl").write_bytes(content(*shown, shown[0] | {"note": "", "completions": [long]}) + b"{\n")
    launcher = pathlib.Path(parsed.__file__).parents[1] / "launch" / "local.py"
    subprocess.run([sys.executable, launcher, "--restarts=0", "--", sys.executable, parsed.__file__, directory], check=True)
    return [json.loads((directory / f"parsed-{i}.json").read_text()) for i in range(2)], directory


def test_two_processes_parse_every_line_once_and_then_only_those_of_their_rows(two_processes):
    (one, other), _ = two_processes
    every = sorted(f"{name}:{line}" for name in parsed.FILES for line in range(1, 12))
    good = [line for line in every if not line.endswith(":11")]
    for part, want in (("index", every), ("survey", good), ("rl", sorted(one["wanted"]))):
        assert sorted(one["lines"][part] + other["lines"][part]) == want, part
        assert abs(len(one["lines"][part]) - len(other["lines"][part])) <= len(want) // 5, part
    assert len(one["lines"]["sft"]) == len(other["lines"]["sft"]) == parsed.B // 2
    assert not set(one["lines"]["sft"]) & set(other["lines"]["sft"])
    assert one["lines"]["tokenizer"] and not other["lines"]["tokenizer"]


def test_what_two_processes_make_of_their_parts_is_whole(two_processes):
    reports, directory = two_processes
    for report in reports:
        assert report["restart"] and report["batch"] and report["in buckets"] and report["drawn"]
        assert report["skipped"] == {"completion too long": 2}
    read = json.loads((directory / "run" / "data.json").read_text())
    found = read[str(directory / "train.jsonl")]
    assert (found["read"], found["used"], found["skipped"]) == (11, 9, {"not JSON": 1, "prompt too long": 1})
    assert [line.partition(": ")[0] for line in found["examples"]["not JSON"]] == [f"{directory / 'train.jsonl'}:11"]
