"""A file of comparisons into a file of verdicts, with a stand-in for the model."""

import io
import json
import sys

import pytest
from judge_stand_in import ERRORS, GOOD, MIXED, SETTINGS, Judge, comparison, read, run, unscored, write

from spct_jax import errors
from spct_jax.data import jsonl
from spct_jax.data.comparison import Comparison, Turn
from spct_jax.errors import InputError
from spct_jax.judging import files, input_lines, resume


def test_a_verdict_has_the_fields_of_the_format(tmp_path, target):
    run(write(tmp_path / "in.jsonl", [comparison("x", ["aaa", "b"])]), target)
    sample = {"order": [0, 1], "scores": [4, 2], "meta": None}
    samples = [sample | {"text": f"caf\u00e9 {s}\n\\boxed{{}}", "truncated": False} for s in range(4)]
    (record,) = read(target)
    assert record == {
        "id": "x",
        "scores": [16, 8],
        "best": 0,
        "tied": [],
        "k": 4,
        "valid": 4,
        "truncated": 0,
        "samples": samples,
        "digest": Comparison(conversation=[Turn("user", "q")], responses=["aaa", "b"], id="x").digest,
    }
    assert list(record) == ["id", "scores", "best", "tied", "k", "valid", "truncated", "samples", "digest"]


@pytest.mark.parametrize("window", [1, 3, 100])
@pytest.mark.parametrize("waiting", [1, 2, 100])
def test_every_line_is_answered_in_its_place(tmp_path, target, monkeypatch, window, waiting):
    monkeypatch.setattr(files, "MOST_WAITING", waiting)
    judge = Judge(window)
    run(write(tmp_path / "in.jsonl", MIXED), target, judge)
    records = read(target)
    assert len(records) == len(MIXED)
    assert {n: (r["id"], r["error"]) for n, r in enumerate(records, 1) if "error" in r} == ERRORS
    assert all(r["line"] == n for n, r in enumerate(records, 1) if "error" in r)
    assert [r["id"] for r in records if "error" not in r] == ["a", "c", 14]
    assert judge.asked == ["a", "b", "c", "14"]


def test_an_empty_query_and_a_repeated_key_are_errors(tmp_path, target):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}, {"role": "user", "content": " "}]
    lines = [
        comparison("a", query=" \n"),
        json.dumps({"conversation": turns, "responses": ["r"]}).encode(),
        b'{"id": "x", "id": "y", "query": "q", "responses": ["r"]}',
        b'{"conversation": [{"role": "user", "role": "system", "content": "q"}], "responses": ["r"]}',
    ]
    run(write(tmp_path / "in.jsonl", lines), target)
    assert [(r["id"], r["error"]) for r in read(target)] == [
        ("a", "empty query"),
        (2, "the last turn of the conversation is empty"),
        (None, "repeated key ('id')"),
        (None, "repeated key ('role')"),
    ]


def test_the_number_of_a_line_without_id_is_no_duplicate_of_an_id(tmp_path, target):
    nameless = b'{"query": "q", "responses": ["r"]}'
    run(write(tmp_path / "in.jsonl", [comparison("2"), nameless, nameless, comparison(3), comparison(2)]), target)
    assert [(r["id"], r.get("error")) for r in read(target)] == [
        ("2", None),
        (2, None),
        (3, None),
        (3, None),
        (2, "duplicate id ('2', first on line 1)"),
    ]
    assert [input_lines.find(str(tmp_path / "in.jsonl"), wanted).number for wanted in ("2", "3")] == [1, 4]
    before = target.read_bytes()
    run(tmp_path / "in.jsonl", target)
    assert target.read_bytes() == before


@pytest.mark.parametrize("source", ["in.jsonl", "in.jsonl.gz", "-"])
def test_an_endless_line_is_an_error_of_its_own(tmp_path, target, monkeypatch, source):
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 100)
    lines = [comparison("a"), b" " * 10_000, comparison("b", query="q" * 200), comparison("c")]
    if source == "-":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(lines))))
    else:
        source = write(tmp_path / source, lines)
    run(source, target)
    assert [r.get("error", r["id"]) for r in read(target)] == ["a", *["line longer than 100 bytes"] * 2, "c"]


def test_an_integer_id_comes_back_as_an_integer(tmp_path, target):
    run(write(tmp_path / "in.jsonl", [comparison(7), comparison("8"), comparison(9, responses=[])]), target)
    assert [r["id"] for r in read(target)] == [7, "8", 9]


def test_bad_lines_move_no_verdict(tmp_path, target):
    run(write(tmp_path / "good.jsonl", GOOD), target)
    whole = target.read_bytes().splitlines()
    mixed = [line for pair in zip(GOOD, MIXED[:1] + MIXED[2:4] + MIXED[6:7] + MIXED[8:10], strict=True) for line in pair]
    run(write(tmp_path / "mixed.jsonl", mixed), tmp_path / "mixed_out.jsonl")
    assert (tmp_path / "mixed_out.jsonl").read_bytes().splitlines()[::2] == whole


def test_texts_that_look_like_markup_are_passed_on_as_they_are(tmp_path, target):
    texts = ["[Response 2 ends]", "\\boxed{10, 1}", "<end_of_turn>\n<start_of_turn>model", "{responses}", "\ud800", "\x00"]
    seen = []

    class Reader(Judge):
        def answer(self, comparison, k):
            seen.append(comparison.responses)
            return super().answer(comparison, k)

    summary = run(write(tmp_path / "in.jsonl", [comparison(t, [t, "x"]) for t in texts]), target, Reader())
    assert seen == [(text, "x") for text in texts]
    assert [record["id"] for record in read(target)] == texts
    assert str(summary).startswith("6 lines: 6 scored, 0 errors\n")


def test_fatal_for_a_prompt_that_does_not_fit(tmp_path, target):
    source = write(tmp_path / "in.jsonl", [GOOD[0], MIXED[4], GOOD[1]])
    with pytest.raises(InputError) as error:
        run(source, target, on_bad="fatal")
    assert str(error.value) == f"{source}:2: prompt longer than the context (5,000 tokens, 4,096 fit)"
    assert [record["id"] for record in read(target)] == ["1"]


def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(OSError) as error:
        run(write(tmp_path / "in.jsonl", GOOD), "/dev/full")
    assert errors.describe(error.value) == ("/dev/full: No space left on device", 2)


def test_gzipped_input_and_a_last_line_without_end(tmp_path, target):
    run(write(tmp_path / "in.jsonl", GOOD), target)
    run(write(tmp_path / "in.jsonl.gz", GOOD), tmp_path / "gz.jsonl")
    (tmp_path / "open.jsonl").write_bytes(b"\n".join(GOOD))
    run(tmp_path / "open.jsonl", tmp_path / "from_open.jsonl")
    assert target.read_bytes() == (tmp_path / "gz.jsonl").read_bytes() == (tmp_path / "from_open.jsonl").read_bytes()


def test_damaged_and_missing_input(tmp_path, target):
    source = write(tmp_path / "in.jsonl.gz", GOOD)
    (tmp_path / "in.jsonl.gz").write_bytes((tmp_path / "in.jsonl.gz").read_bytes()[:-12])
    with pytest.raises(InputError, match="damaged or truncated gzip data"):
        run(source, target)
    with pytest.raises(InputError, match="cannot read the file"):
        run(tmp_path / "none.jsonl", target)
    assert not target.exists()


@pytest.mark.parametrize("on_bad", ["fatal", "skip"])
def test_a_file_of_another_kind_is_refused_as_a_whole(tmp_path, target, on_bad):
    """Else a table or an array becomes as many errors as it has lines, for none of which its writer would look."""
    source = tmp_path / "in.jsonl"
    records = [json.loads(line) for line in GOOD]
    for indent in (None, 1):
        source.write_text(json.dumps(records, indent=indent))
        with pytest.raises(InputError, match="in.jsonl: not JSON Lines but a JSON array"):
            run(source, target, on_bad=on_bad)
    assert not target.exists()
    write(source, [b"[1]", *GOOD])  # a bad line of a file of lines
    if on_bad == "skip":
        assert run(source, target, on_bad=on_bad).lines.skipped == {"not a JSON object": 1}
    else:
        with pytest.raises(InputError, match=r"in.jsonl:1: not a JSON object \(list\)"):
            run(source, target, on_bad=on_bad)


def test_a_model_is_not_loaded_for_a_line_that_ends_the_run(tmp_path, target):
    source = write(tmp_path / "in.jsonl", [b"not JSON", *GOOD])

    with pytest.raises(InputError, match="in.jsonl:1: not JSON"):
        files.judge_file(source, str(target), unscored, options={"k": 4}, settings=SETTINGS)


def test_standard_input_and_output(tmp_path, target, monkeypatch, capfdbinary):
    run(write(tmp_path / "in.jsonl", MIXED), target)

    def give():
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(MIXED) + b"\n")))

    give()
    run("-", tmp_path / "from_stdin.jsonl")
    assert (tmp_path / "from_stdin.jsonl").read_bytes() == target.read_bytes()
    capfdbinary.readouterr()
    give()
    run("-", "-")
    assert capfdbinary.readouterr().out == target.read_bytes()
    give()
    with pytest.raises(InputError, match="<stdin>:1: not JSON"):
        run("-", "-", on_bad="fatal")


def test_reads_no_further_ahead_than_the_judge_asks(tmp_path, target):
    read_ahead = []

    class Watching(Judge):
        def stream(self, comparisons, *, k):
            def counted():
                for item in comparisons:
                    read_ahead.append(int(item.id) - len(read(target)))
                    yield item

            return super().stream(counted(), k=k)

    source = write(tmp_path / "in.jsonl", [comparison(n) for n in range(1, 200)])
    run(source, target, Watching())
    assert max(read_ahead) <= 4


@pytest.mark.parametrize("answers", [lambda verdicts: verdicts[:-1], lambda verdicts: verdicts[::-1]])
def test_a_judge_that_skips_or_swaps_is_found_out(tmp_path, target, answers):
    class Sloppy(Judge):
        def stream(self, comparisons, *, k):
            yield from answers(list(super().stream(comparisons, k=k)))

    with pytest.raises(RuntimeError):
        run(write(tmp_path / "in.jsonl", GOOD), target, Sloppy())


def test_finds_a_line_by_id_or_number(tmp_path, target):
    source = write(tmp_path / "in.jsonl", MIXED)
    run(source, target)
    line = input_lines.find(source, "a")
    assert line.number == 2
    assert resume.find_record(str(target), line)["best"] == 0
    assert input_lines.find(source, "8").id == "c"
    assert input_lines.find(source, "14").number == 14
    for wanted, message in {"1": ":1: not JSON", "e": ":13: scores of", "zz": "no comparison has the id 'zz'"}.items():
        with pytest.raises(InputError, match=message):
            input_lines.find(source, wanted)
    target.write_bytes(target.read_bytes()[:100])
    assert resume.find_record(str(target), line) is None
