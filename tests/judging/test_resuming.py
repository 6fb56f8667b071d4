"""An output that is gone on with, and one that is not this input's."""

import json

import pytest
from judge_stand_in import GOOD, MIXED, SETTINGS, Judge, comparison, read, run, unscored, write

from spct_jax.errors import InputError
from spct_jax.judging import files
from spct_jax.storage.locks import lock


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


def test_other_settings_are_named(tmp_path, target):
    source = write(tmp_path / "in.jsonl", GOOD)
    run(source, target)
    before = target.read_bytes()
    with pytest.raises(InputError) as error:
        run(source, target, settings=SETTINGS | {"k": 8})
    assert str(error.value) == f"{target}: begun with --k=4, not 8; choose another --output"
    with pytest.raises(InputError, match="begun without --quantize=int8; choose another --output"):
        run(source, target, settings=SETTINGS | {"quantize": "int8"})
    with pytest.raises(InputError, match="begun with --k=4, not without it; choose another --output"):
        run(source, target, settings={name: value for name, value in SETTINGS.items() if name != "k"})
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
    with open(target, "ab") as file:
        lock(file, "")
        with pytest.raises(InputError, match="another run is writing it"):
            run(source, target)


class Sized(Judge):
    """Knows how much memory its devices have, and notes what it is told to choose shapes for."""

    def __init__(self, memory, **more):
        super().__init__(**more)
        self.memory, self.chosen_for = memory, None

    def stream(self, comparisons, *, k, memory=None, batch_size=0):
        self.chosen_for = memory
        return super().stream(comparisons, k=k)


def test_shapes_stay_those_that_the_output_was_begun_with(tmp_path, target):
    """On devices with more memory, too; with less, a batch size has to be named."""
    source, settings = write(tmp_path / "in.jsonl", GOOD), tmp_path / "out.jsonl.settings.json"
    with pytest.raises(KeyboardInterrupt):
        run(source, target, Sized(8 << 30, breaks_at="5"))
    assert json.loads(settings.read_text())["device_memory"] == 8 << 30
    more = Sized(16 << 30, breaks_at="6")
    with pytest.raises(KeyboardInterrupt):
        run(source, target, more)
    assert more.chosen_for == 8 << 30
    before, less = target.read_bytes(), Sized(4 << 30)
    with pytest.raises(InputError) as error:
        run(source, target, less)
    assert str(error.value).startswith(f"{target}: shapes were chosen for 8.00 GiB of a device, and these have 4.00")
    assert "with a --batch_size of your own" in str(error.value) and not less.asked and target.read_bytes() == before
    options = {"k": 4, "batch_size": 3}
    files.judge_file(source, str(target), lambda: less, options=options, settings=SETTINGS, on_bad="skip")
    assert less.chosen_for is None and len(read(target)) == 6 and "device_memory" not in json.loads(settings.read_text())


def test_an_output_that_holds_nothing_yet_is_begun_with_the_memory_there_is(tmp_path, target):
    source = write(tmp_path / "in.jsonl", GOOD)
    with pytest.raises(KeyboardInterrupt):
        run(source, target, Sized(16 << 30, breaks_at="1"))
    assert target.read_bytes() == b""
    less = Sized(8 << 30)
    run(source, target, less)
    assert less.chosen_for == 8 << 30
