import gzip
import json
import os

import pytest

from spct_jax.data.comparison import Comparison, to_json
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.jsonl import write_jsonl
from spct_jax.data.kinds import DECIDED, DEMONSTRATIONS
from spct_jax.data.sources import Source, open_source, parse_source, read_comparisons, read_demonstrations
from spct_jax.errors import InputError


def record(**change):
    return {"query": "q", "responses": ["a", "b"], "scores": [1, 2]} | change


def lines(*records):
    return b"".join(json.dumps(item).encode() + b"\n" for item in records)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_round_trip(tmp_path, name):
    path = tmp_path / name
    comparisons = [
        Comparison(conversation=[{"role": "user", "content": text}], responses=["a", "\u2028b"], scores=[1, 2], id=str(i))
        for i, text in enumerate(["x\ny", "caf\u00e9", "\ud800", "\0", "[End]"])
    ]
    write_jsonl(path, map(to_json, comparisons))
    read, report = read_comparisons(path, need_best=True)
    assert read == comparisons
    assert (report.read, report.used, report.skipped) == (5, 5, {})
    assert os.listdir(tmp_path) == [name]


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [{"a": 1}])
    with pytest.raises(TypeError):
        write_jsonl(path, [{"a": 2}, {"a": object()}])
    assert path.read_text() == '{"a": 1}\n'


def test_blank_lines_default_ids_and_byte_order_mark(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + lines(record()) + b"\n" + lines(record()))
    comparisons, report = read_comparisons(path)
    assert [comparison.id for comparison in comparisons] == ["1", "3"]
    assert report.read == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{path}: holds no comparisons"),
        (b"\n \n", "{path}: holds no comparisons"),
        (
            lines(record()) + b"{'a'}\n",
            "{path}:2: not JSON (Expecting property name enclosed in double quotes at column 2)",
        ),
        (b'{"query": "cut"\n', "{path}:1: not JSON (Expecting ',' delimiter at column 16)"),
        (b'{"query": "cut', "{path}:1: not JSON (Unterminated string starting at column 11)"),
        (lines(record()) + b'"\xff"\n', "{path}:2: not UTF-8 (byte 2 of the line)"),
        (lines([], record()), "{path}:1: not a JSON object (list)"),
        (lines({"query": "q"}), "{path}:1: missing field 'responses'"),
        (lines(record(responses=["a", ""])), "{path}:1: empty response (number 2)"),
        (lines(record(responses="ab")), "{path}:1: responses is not a list of strings (str)"),
        (lines(record(scores=[1])), "{path}:1: scores of the wrong length (1 for 2 responses)"),
        (lines(record(scores=[1, float("inf")])), "{path}:1: score is not finite"),
        (lines(record(id="x"), record(), record(id="x")), "{path}:3: duplicate id ('x', first on line 1)"),
        (lines(record(scores=[2, 2])), "{path}:1: no unique best response (2 is the top score of several)"),
        (lines(record(scores=None)), "{path}:1: no scores, so no best response"),
        (lines(record(responses=["a"], scores=[3])), "{path}:1: score of a single response is not 0 or 1 (3)"),
    ],
)
def test_errors_name_the_line(tmp_path, content, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_comparisons(path, need_best=True)
    assert str(error.value) == message.format(path=path)


@pytest.mark.parametrize("content", [b'{"id": ' + b"[" * 100_000, b'{"id": ' + b"9" * 5000 + b"}"])
def test_hostile_json(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=":1: not JSON"):
        read_comparisons(path)


def test_ties_and_missing_scores_are_fine_where_no_best_is_needed(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines(record(scores=[2, 2]), record(scores=None)))
    assert len(read_comparisons(path)[0]) == 2


def test_skipped_lines_are_counted_by_reason(tmp_path):
    path = tmp_path / "x.jsonl"
    bad = [record(responses=["", "b"]), record(responses=["a", ""]), record(id="x"), record(scores=[1, 1])]
    path.write_bytes(lines(record(id="x"), *bad) + b"{\n" + lines(record()))
    comparisons, report = read_comparisons(path, on_bad="skip", need_best=True)
    assert [comparison.id for comparison in comparisons] == ["x", "7"]
    assert (report.read, report.used) == (7, 2)
    assert report.skipped == {"empty response": 2, "duplicate id": 1, "no unique best response": 1, "not JSON": 1}


def test_the_number_of_a_line_without_id_is_no_duplicate_of_an_id(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines(record(id="2"), record(), record(), record(id=3)))
    assert [comparison.id for comparison in read_comparisons(path)[0]] == ["2", "2", "3", "3"]


def test_a_repeated_key_is_an_error(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines(record()) + b'{"query": "q", "responses": ["a"], "query": "r"}')
    with pytest.raises(InputError, match=r":2: repeated key .'query'"):
        read_comparisons(path)


def test_nothing_left_is_an_error_with_the_reasons(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{,\n{,\n")
    with pytest.raises(InputError, match=r"holds no comparisons \(2 skipped: not JSON\)"):
        read_comparisons(path, on_bad="skip")


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="no.jsonl: cannot read the file .No such file"):
        read_comparisons(tmp_path / "no.jsonl")
    with pytest.raises(InputError, match="cannot read the file .Is a directory"):
        read_comparisons(tmp_path)
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(b"plain")
    with pytest.raises(InputError, match=":1: damaged or truncated gzip"):
        read_comparisons(path)
    path.write_bytes(gzip.compress(lines(*[record(id=os.urandom(20).hex()) for _ in range(500)]))[:-200])
    with pytest.raises(InputError, match=r"x.jsonl.gz:\d+: damaged or truncated gzip"):
        read_comparisons(path, on_bad="skip")
    with pytest.raises(InputError, match="on_bad is 'ignore'"):
        read_comparisons(path, on_bad="ignore")


def test_demonstrations(tmp_path):
    path = tmp_path / "x.jsonl"
    turns = [{"role": "user", "content": "q"}]
    path.write_bytes(lines({"turns": turns, "completions": ["a", "b"]}))
    assert read_demonstrations(path)[0] == [Demonstration(turns, ["a", "b"])]
    for bad, message in [
        ({"turns": turns}, "missing field 'completions'"),
        ({"completions": ["a"]}, "missing field 'turns'"),
        ({"turns": [], "completions": ["a"]}, "empty turns"),
        ({"turns": turns, "completions": []}, "no completions"),
        ({"turns": turns, "completions": [" "]}, r"empty completion \(number 1\)"),
        ({"turns": turns + turns, "completions": ["a"]}, r"turns must alternate .* \(they are user, user\)"),
        ({"turns": [{"role": "user", "content": " "}], "completions": ["a"]}, "the last turn of the turns is empty"),
        (3, r"not a JSON object \(int\)"),
    ]:
        path.write_bytes(lines(bad))
        with pytest.raises(InputError, match=f":1: {message}"):
            read_demonstrations(path)
        with pytest.raises(InputError, match="holds no demonstrations .1 skipped"):
            read_demonstrations(path, "skip")


def test_turns_that_do_not_alternate_are_skipped_and_counted(tmp_path):
    """Every prompt that is read can be encoded; whatever cannot is named, or left out, where it is read."""
    path, user, model = tmp_path / "x.jsonl", {"role": "user", "content": "q"}, {"role": "model", "content": "a"}
    system = {"role": "system", "content": "s"}
    bad = [[user, user], [model, user], [user, system, user], [system, system, user], [user, model, model, user]]
    good = [[user], [system, user], [user, model, user], [system, user, model, user]]
    path.write_bytes(lines(*({"turns": turns, "completions": ["a"]} for turns in bad + good)))
    read, report = read_demonstrations(path, "skip")
    assert [len(shown.turns) for shown in read] == [len(turns) for turns in good]
    assert report.skipped == {"turns must alternate from user to user after at most one system turn": len(bad)}


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a/b.jsonl", Source("", "jsonl", "a/b.jsonl", bare=True)),
        ("a/b", Source("", "jsonl", "a/b", bare=True)),
        ("a/*.parquet", Source("", "parquet", "a/*.parquet", bare=True)),
        ("a b.json.gz", Source("", "json", "a b.json.gz", bare=True)),
        ("/x:y/b.jsonl", Source("", "jsonl", "/x:y/b.jsonl", bare=True)),
        ("jsonl:a/*.jsonl", Source("", "jsonl", "a/*.jsonl")),
        ("parquet:a*.parquet", Source("", "parquet", "a*.parquet")),
        ("tfds:mine/small:train[:10%]", Source("", "tfds", "mine/small:train[:10%]")),
        ("toy:", Source("", "toy", "")),
        ("toy:test", Source("", "toy", "test")),
        ("hh_rlhf:a/*.gz", Source("hh_rlhf", "", "a/*.gz")),
        ("hh_rlhf:c:/a.jsonl", Source("hh_rlhf", "", "c:/a.jsonl")),
        ("pairs:tfds:mine:train", Source("pairs", "tfds", "mine:train")),
        ("pairs:jsonl:a.txt", Source("pairs", "jsonl", "a.txt")),
    ],
)
def test_sources_are_strings(text, source):
    assert parse_source(text) == source and str(source) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hh_rhlf:a.jsonl", "hh_rhlf:a.jsonl: no format or layout is called 'hh_rhlf'; did you mean 'hh_rlhf'"),
        ("parket:x", "did you mean 'parquet'"),
        ("hh_rlhf:", "hh_rlhf:: names no file"),
        ("", "a source names no file"),
        ("pairs:tfds:", "pairs:tfds:: names no file"),
    ],
)
def test_sources_that_are_none(text, message):
    with pytest.raises(InputError, match=message):
        parse_source(text)


def test_a_file_with_a_colon_in_its_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").write_bytes(lines(record()))
    assert len(read_comparisons("a:b")[0]) == 1


def test_a_place_becomes_absolute_only_if_it_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, want in [
        ("x.jsonl", f"{tmp_path}/x.jsonl"),
        ("pairs:x*.json", f"pairs:{tmp_path}/x*.json"),
        ("pairs:tfds:a:train", "pairs:tfds:a:train"),
        ("toy:", "toy:"),
    ]:
        assert str(parse_source(text).absolute("--x")) == want
    with pytest.raises(InputError, match="--x=s3://b/x.jsonl: a URL"):
        parse_source("pairs:s3://b/x.jsonl").absolute("--x")


def test_the_files_of_a_source(tmp_path):
    for name in "ba":
        (tmp_path / f"{name}.jsonl").write_bytes(lines(record()))
    assert parse_source(f"jsonl:{tmp_path}/*.jsonl").paths() == [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    assert parse_source("toy:").paths() == []
    with pytest.raises(InputError, match="no file has a name of this form"):
        parse_source(f"jsonl:{tmp_path}/*.gz").paths()


def test_fields_with_other_names(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines({"question": "q", "good": "a", "bad": "b"}, {"question": "q", "good": "a"}))
    fields = ("prompt=question", "chosen=good", "rejected=bad")
    records, report = open_source(f"pairs:{path}", DECIDED, on_bad="skip", fields=fields)
    assert records[0].query == "q" and records[0].responses[records[0].best] == "a"
    assert report.skipped == {"missing field 'rejected'": 1}
    path.write_bytes(lines({"good": "q", "prompt": "x"} | record()))
    (shown, _) = open_source(str(path), DECIDED, fields=("query=good", "responses=responses"))
    assert shown[0].query == "q"


def test_an_index_is_of_one_layout_and_kind(tmp_path):
    """The same directory and name: what is kept of another reading is not taken."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines({"instruction": "i", "output": "o", "chosen": "a", "rejected": "b"}))
    open_ = [("llama_factory", DECIDED), ("alpaca", DEMONSTRATIONS), ("llama_factory", DEMONSTRATIONS)]
    kept = [open_source(f"{name}:{path}", kind, directory=tmp_path, name="train")[0][0] for name, kind in open_]
    assert kept[0].query == "i" and kept[1].completions == ("o",) and kept[2].completions == ("a",)


def test_the_toy_world_is_not_for_everyone():
    with pytest.raises(InputError, match="toy:: only a training run"):
        open_source("toy:", DECIDED)
