"""`python -m spct_jax.judge`: what it reads and writes, with a stand-in for the model."""

import gzip
import io
import itertools
import json
import subprocess
import sys

import pytest

from spct_jax import errors
from spct_jax.data import sources
from spct_jax.data.comparison import Comparison, Turn
from spct_jax.errors import InputError
from spct_jax.judging import files, verdicts
from spct_jax.judging.verdicts import Sample, Verdict

SETTINGS = {"checkpoint": "/models/judge", "k": 4, "seed": 0}


class Judge:
    """Scores by the lengths of the responses; reads `window` comparisons ahead; breaks at the id `breaks_at`."""

    def __init__(self, window=3, breaks_at=None):
        self.window, self.breaks_at, self.asked, self.ahead = window, breaks_at, [], 0
        self.digests = {"checkpoint": "c0", "template": "t0"}

    def stream(self, comparisons, *, k):
        comparisons, window = iter(comparisons), []
        while window := window + list(itertools.islice(comparisons, self.window - len(window))):
            comparison, *window = window
            self.asked.append(comparison.id)
            if comparison.id == self.breaks_at:
                raise KeyboardInterrupt
            yield self.answer(comparison, k)

    def answer(self, comparison, k):
        if "TOO LONG" in comparison.query:
            return InputError("prompt longer than the context (5,000 tokens, 4,096 fit)")
        if "MUMBLE" in comparison.query:
            return Verdict(comparison.id, None, None, (), k, 0, 0, (Sample(tuple(range(comparison.n)), None, None, "?"),) * k)
        scores = tuple(len(response) % 10 + 1 for response in comparison.responses)
        samples = tuple(Sample(tuple(range(comparison.n)), scores, None, f"caf\u00e9 {s}\n\\boxed{{}}") for s in range(k))
        totals = tuple(k * score for score in scores)
        return Verdict(comparison.id, totals, totals.index(max(totals)), (), k, k, 0, samples)


def comparison(id, responses=("aaa", "bb"), query="q", **more):
    return json.dumps({"id": id, "query": query, "responses": list(responses)} | more).encode()


GOOD = [comparison(str(n), ["a" * n, "b" * (9 - n)]) for n in range(1, 7)]
MIXED = [
    b"{'id': 1}",
    comparison("a", scores=[1, 0]),
    b'"\xff"',
    b"",
    comparison("b", query="TOO LONG"),
    comparison("a"),
    b'{"query": "q", "responses": []}',
    comparison("c", query="MUMBLE", scores=[0, 1]),
    b"[1]",
    comparison(7, responses=["a", 5]),
    comparison(True),
    comparison("d", responses=["x" * 5_000_000]),
    comparison("e", scores=[1, 2, 3]),
    b'{"query": "no id", "responses": ["one"]}',
    b'{"id": "f", "responses": ["one"]}',
    b"  ",
]
ERRORS = {
    1: (None, "not JSON (Expecting property name enclosed in double quotes at column 2)"),
    3: (None, "not UTF-8 (byte 2 of the line)"),
    4: (None, "blank line"),
    5: ("b", "prompt longer than the context (5,000 tokens, 4,096 fit)"),
    6: ("a", "duplicate id ('a', first on line 2)"),
    7: (7, "no responses"),
    9: (None, "not a JSON object (list)"),
    10: (7, "response is not a string (number 2 is int)"),
    11: (None, "id is not a string or an integer (bool)"),
    12: ("d", "longer than any context (5,000,001 characters)"),
    13: ("e", "scores of the wrong length (3 for 2 responses)"),
    15: ("f", "missing field 'conversation' (or 'query')"),
    16: (None, "blank line"),
}


def write(path, lines):
    text = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


def run(source, target, judge=None, on_bad="skip", settings=SETTINGS, k=4):
    judge = judge or Judge()
    return files.judge_file(str(source), str(target), lambda: judge, options={"k": k}, settings=settings, on_bad=on_bad)


def unscored():
    raise AssertionError("a model was loaded")


def read(target):
    return [json.loads(line) for line in target.read_text().splitlines()]


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out.jsonl"


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


def test_a_meta_reward_that_is_not_finite_becomes_null():
    verdict = Verdict("x", (1,), 0, (), 1, 1, 0, (Sample((0,), (1,), float("nan"), ""),))
    assert verdicts.to_json(verdict)["samples"][0]["meta"] is None


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
    assert [files.find(str(tmp_path / "in.jsonl"), wanted).number for wanted in ("2", "3")] == [1, 4]
    before = target.read_bytes()
    run(tmp_path / "in.jsonl", target)
    assert target.read_bytes() == before


@pytest.mark.parametrize("source", ["in.jsonl", "in.jsonl.gz", "-"])
def test_an_endless_line_is_an_error_of_its_own(tmp_path, target, monkeypatch, source):
    monkeypatch.setattr(sources, "LONGEST_LINE", 100)
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


@pytest.mark.parametrize("lines", [GOOD[:2], [*MIXED[:2], b"", *MIXED[4:5]]])
def test_resumes_from_an_output_cut_at_any_byte(tmp_path, target, lines):
    source = write(tmp_path / "in.jsonl", lines)
    summary = str(run(source, target, k=1))
    whole = target.read_bytes()
    for size in range(len(whole) + 1):
        target.write_bytes(whole[:size])
        judge = Judge()
        assert str(run(source, target, judge, k=1)) == summary
        assert target.read_bytes() == whole
        kept = whole[:size].count(b"\n")
        assert judge.asked == [json.loads(line)["id"] for line in lines[kept:] if b"query" in line]


def test_a_killed_run_loses_and_repeats_nothing(tmp_path, target):
    source = write(tmp_path / "in.jsonl", GOOD)
    run(source, tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    for id in ("4", "6"):
        with pytest.raises(KeyboardInterrupt):
            run(source, target, Judge(breaks_at=id))
        assert target.read_bytes() == b"".join(whole.splitlines(keepends=True)[: int(id) - 1])
    judge = Judge()
    run(source, target, judge)
    assert target.read_bytes() == whole
    assert judge.asked == ["6"]


def test_a_finished_output_is_only_summed_up(tmp_path, target):
    source = write(tmp_path / "in.jsonl", MIXED)
    summary, before = run(source, target), target.read_bytes()
    again = files.judge_file(source, str(target), unscored, options={}, settings=SETTINGS, on_bad="fatal")
    assert str(again) == str(summary)
    assert target.read_bytes() == before


def test_fatal_keeps_what_stands_before_the_bad_line_and_goes_on_once_it_is_mended(tmp_path, target):
    source = write(tmp_path / "in.jsonl", [*GOOD[:3], b"", b"{", *GOOD[3:]])
    with pytest.raises(InputError) as error:
        run(source, target, on_bad="fatal")
    assert str(error.value).startswith(f"{source}:5: not JSON")
    assert [record["id"] for record in read(target)] == ["1", "2", "3", None]
    write(tmp_path / "in.jsonl", [*GOOD[:3], b"", comparison("mended"), *GOOD[3:]])
    judge = Judge()
    run(source, target, judge, on_bad="fatal")
    assert judge.asked == ["mended", "4", "5", "6"]
    assert len(read(target)) == 8


def test_fatal_for_a_prompt_that_does_not_fit(tmp_path, target):
    source = write(tmp_path / "in.jsonl", [GOOD[0], MIXED[4], GOOD[1]])
    with pytest.raises(InputError) as error:
        run(source, target, on_bad="fatal")
    assert str(error.value) == f"{source}:2: prompt longer than the context (5,000 tokens, 4,096 fit)"
    assert [record["id"] for record in read(target)] == ["1"]


def test_other_settings_are_named(tmp_path, target):
    source = write(tmp_path / "in.jsonl", GOOD)
    run(source, target)
    before = target.read_bytes()
    with pytest.raises(InputError) as error:
        run(source, target, settings=SETTINGS | {"k": 8})
    assert str(error.value) == f"{target}: begun with --k=4, not 8; choose another --output"
    assert target.read_bytes() == before
    target.unlink()
    run(source, target, settings=SETTINGS | {"k": 8})
    assert json.loads((tmp_path / "out.jsonl.settings.json").read_text()) == SETTINGS | {"k": 8, "digests": Judge().digests}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"checkpoint": "c1"}, "--checkpoint=/models/judge has other parameters, tokenizer or templates than the output was"),
        ({"template": "t1"}, "--template has other text than the output was"),
        ({"meta_checkpoint": "m1"}, "--meta_checkpoint has other parameters"),
    ],
)
def test_another_model_or_template_under_the_same_name_is_named(tmp_path, target, changed, message):
    source = write(tmp_path / "in.jsonl", GOOD)
    with pytest.raises(KeyboardInterrupt):
        run(source, target, Judge(breaks_at="4"))
    before, other = target.read_bytes(), Judge()
    other.digests |= changed
    with pytest.raises(InputError) as error:
        run(source, target, other)
    assert str(error.value).startswith(f"{target}: {message}") and not other.asked
    assert target.read_bytes() == before
    run(source, target)
    assert len(read(target)) == 6


def test_other_texts_under_the_same_ids_are_found_out(tmp_path, target):
    """A line put on top of an input without ids, a text edited, a bad line that is another."""
    nameless = [json.dumps({"query": f"q{i}", "responses": ["a", "b"]}).encode() for i in range(4)]
    run(write(tmp_path / "in.jsonl", [*nameless, b"{"]), target)
    before = target.read_bytes()
    run(
        write(tmp_path / "in.jsonl", [json.dumps(json.loads(t) | {"scores": [0, 1]}).encode() for t in nameless] + [b" {"]),
        target,
    )
    for lines in ([nameless[0], *nameless[:3], b"{"], [*nameless[:2], nameless[2].replace(b"a", b"c"), nameless[3], b"{"]):
        with pytest.raises(InputError, match=r"out.jsonl:[23]: answers other texts than those that .*in.jsonl:[23] holds now"):
            run(write(tmp_path / "in.jsonl", lines), target)
    with pytest.raises(InputError, match=r"out.jsonl:5: answers other texts"):
        run(write(tmp_path / "in.jsonl", [*nameless, b"{{"]), target)
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([comparison("other"), *GOOD[1:]], "{out}:1: a verdict on '1', but {source}:1 is 'other' with 2 responses;"),
        ([comparison("1", ["a"]), *GOOD[1:]], "{out}:1: a verdict on '1', but {source}:1 is '1' with 1 responses;"),
        ([GOOD[0], b"{", *GOOD[2:]], "{out}:2: a verdict on '2', but {source}:2 is a bad line (not JSON"),
        (GOOD[:4], "{out}:5: {source} has no such line;"),
    ],
)
def test_the_output_of_another_input_is_left_alone(tmp_path, target, lines, message):
    run(write(tmp_path / "first.jsonl", GOOD), target)
    before = target.read_bytes()
    source = write(tmp_path / "second.jsonl", lines)
    with pytest.raises(InputError) as error:
        run(source, target)
    assert str(error.value).startswith(message.format(out=target, source=source))
    assert target.read_bytes() == before


def test_a_file_of_another_kind_is_left_alone(tmp_path):
    source = write(tmp_path / "in.jsonl", GOOD)
    for target in (source, source + ".gz", tmp_path / "none" / "out.jsonl"):
        with pytest.raises(InputError, match="choose another --output|cannot be compressed|No such file or directory"):
            run(source, target)
    assert (tmp_path / "in.jsonl").read_bytes() == b"\n".join(GOOD) + b"\n"


def test_two_runs_do_not_write_one_output(tmp_path, target):
    source = write(tmp_path / "in.jsonl", GOOD)
    with files._opened(str(target)), pytest.raises(InputError, match="another run is writing it"):
        run(source, target)


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
                for comparison in comparisons:
                    read_ahead.append(int(comparison.id) - len(read(target)))
                    yield comparison

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


def test_summary_by_hand():
    summary = verdicts.Summary()

    def add(scores, given, valid, drawn):
        record = {"scores": scores, "valid": valid, "truncated": drawn - valid, "samples": [{}] * drawn}
        turns, responses = [{"role": "user", "content": "q"}], ["r"] * len(given or scores)
        summary.add_verdict(record, Comparison(conversation=turns, responses=responses, scores=given))

    add([9, 5, 1], [1, 0, 0], 4, 4)  # right
    add([5, 5, 1], [1, 0, 0], 3, 4)  # two share the top: 1/2
    add(None, [1, 0], 0, 2)  # no verdict: 1/2
    add([2, 7], [1, 0], 2, 2)  # wrong
    add([2, 2], None, 4, 4)  # a tie nobody can judge
    add([3, 4], [1, 1], 4, 4)  # people found no one best
    add([6], [1], 4, 4)  # one response: nothing to agree on
    for reason in ("not JSON (x)", "not JSON (y)", "no responses"):
        summary.add_error(reason)
    summary.add_blank()
    assert str(summary).splitlines() == [
        "11 lines: 7 scored, 3 errors, 1 blank",
        "  2 x not JSON",
        "  1 x no responses",
        "samples: 3.4 per comparison, 87.5 % of 24 valid",
        "truncated, and so not valid: 12.5 % of 24 samples",
        "without a verdict, since no sample was valid: 1 comparison",
        "ties: 40.0 % of 5",
        "agreement with the given scores: 50.0 % of 4 (a tie counts by its chance)",
    ]


def test_a_verdict_explained():
    asked = Comparison(conversation=[{"role": "user", "content": "Hi\x1b[2J\nthere"}], responses=["good", "bad"], scores=[1, 0])
    samples = [
        {"order": [1, 0], "scores": [8, 3], "meta": 0.5, "text": "Specific Criteria:\nwarmth", "truncated": False},
        {"order": [0, 1], "scores": None, "meta": None, "text": "\ud800", "truncated": False},
        {"order": [0, 1], "scores": None, "meta": None, "text": "Scores: \\boxed{9, 1} so", "truncated": True},
        {"order": [0, 1], "scores": [5, 9], "meta": -1.25, "text": "z", "truncated": False},
    ]
    record = {"id": "x", "scores": [8, 3], "best": 0, "tied": [], "k": 4, "valid": 2, "truncated": 1, "samples": samples}
    assert verdicts.explain(asked, record) == "\n".join(
        [
            "User",
            "  Hi\ufffd[2J",
            "  there",
            "",
            "Response 1",
            "  good",
            "",
            "Response 2",
            "  bad",
            "",
            "Sample 1 (responses shown in the order 2, 1)",
            "  Specific Criteria:",
            "  warmth",
            "  => response 1: 8, response 2: 3; meta reward 0.500",
            "",
            "Sample 2 (responses shown in the order 1, 2)",
            "  \ufffd",
            "  => no scores that can be read",
            "",
            "Sample 3 (responses shown in the order 1, 2)",
            "  Scores: \\boxed{9, 1} so",
            "  => cut at the limit of tokens, not read",
            "",
            "Sample 4 (responses shown in the order 1, 2)",
            "  z",
            "  => response 1: 5, response 2: 9; meta reward -1.250",
            "",
            "votes     response 1  response 2  meta reward",
            "sample 1           8           3        0.500",
            "sample 2           -           -            -",
            "sample 3           -           -            -",
            "sample 4           5           9       -1.250",
            "total              8           3",
            "(The total is of the samples that the meta reward model trusts most.)",
            "",
            "Response 1 wins by 5, 8 to 3; 2 of 4 samples could be read.",
            "The scores given by people: response 1: 1, response 2: 0.",
        ]
    )


@pytest.mark.parametrize(
    ("scores", "ending"),
    [
        (None, "No verdict: 0 of 0 samples could be read."),
        ([4], "The response gets 4; 1 of 0 samples could be read."),
        ([4, 4, 1], "A tie: responses 1 and 2 share the highest total, 4; 3 of 0 samples could be read."),
        ([4, 4, 4], "A tie: responses 1, 2 and 3 share the highest total, 4; 3 of 0 samples could be read."),
    ],
)
def test_how_an_explanation_ends(scores, ending):
    n = len(scores or "xy")
    asked = Comparison(conversation=[{"role": "user", "content": "q"}], responses=["r"] * n)
    record = {"scores": scores, "valid": len(scores or ""), "samples": []}
    assert verdicts.explain(asked, record).splitlines()[-1] == ending


def test_finds_a_line_by_id_or_number(tmp_path, target):
    source = write(tmp_path / "in.jsonl", MIXED)
    run(source, target)
    line = files.find(source, "a")
    assert line.number == 2
    assert files.find_record(str(target), line)["best"] == 0
    assert files.find(source, "8").id == "c"
    assert files.find(source, "14").number == 14
    for wanted, message in {"1": ":1: not JSON", "e": ":13: scores of", "zz": "no comparison has the id 'zz'"}.items():
        with pytest.raises(InputError, match=message):
            files.find(source, wanted)
    target.write_bytes(target.read_bytes()[:100])
    assert files.find_record(str(target), line) is None


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("--explain=a --output={tmp}/out.jsonl", 0, "Response 1 wins by 4, 16 to 12; 4 of 4 samples could be read."),
        ("--explain=5 --output={tmp}/out.jsonl", 2, "error: {tmp}/in.jsonl:5: prompt longer than the context"),
        ("--output={tmp}/new.jsonl --checkpoint={tmp}/none", 2, "error: --checkpoint={tmp}/none: no such directory"),
        ("--output={tmp}/new.jsonl --checkpoint={tmp} --k_meta=2", 2, "error: --k_meta and --meta_checkpoint need each other"),
        (
            "--output={tmp}/new.jsonl --checkpoint={tmp} --seed=4294967296",
            2,
            "error: --seed: 4294967296 is not in [0, ",
        ),
        ("--output={tmp}/new.jsonl --checkpoint={tmp} --on_bad=no", 2, "error: flag --on_bad=no"),
    ],
)
def test_the_command(tmp_path, target, flags, code, message):
    source = write(tmp_path / "in.jsonl", MIXED)
    run(source, target)
    command = [sys.executable, "-m", "spct_jax.judge", f"--input={source}", *flags.format(tmp=tmp_path).split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert message.format(tmp=tmp_path) in (done.stderr if code else done.stdout)
    assert code == 0 or done.stderr.count("\n") == 1
