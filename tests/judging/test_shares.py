"""Shares of one file: dealt, judged apart, left by killed runs of other numbers of processes, joined."""

import itertools
import json
import time
import types

import pod_of_threads
import pytest
from judge_stand_in import ERRORS, MIXED, SETTINGS, Judge, comparison, read, run, unscored, write

from spct_jax.errors import InputError
from spct_jax.judging import files, shares
from spct_jax.storage import append_only

LINES = [comparison(str(n), ["a" * (n % 9 + 1), "b" * 5]) for n in range(1, 24)]


def numbered(*numbers):
    return [types.SimpleNamespace(number=number) for number in numbers]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_line_that_is_left_is_dealt_to_one_process_and_shares_are_as_large_as_each_other(count):
    left = [(3, 4), (6, 11), (14, shares.END)]
    dealt = [[line.number for line in shares.deal(numbered(*range(1, 21)), left, i, count)] for i in range(count)]
    assert sorted(itertools.chain(*dealt)) == [3, 4, *range(6, 12), *range(14, 21)]
    assert all(found == sorted(found) for found in dealt)
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@pytest.fixture
def pod(monkeypatch):
    """Runs a file as several processes, one judge each; gives summaries, or what ended each process."""

    def start(judges, source, target, on_bad="skip", settings=SETTINGS, then=lambda summary: summary):
        options = {"options": {"k": 4}, "settings": settings, "on_bad": on_bad}

        def process(index):
            return then(files.judge_file(str(source), str(target), lambda: judges[index], **options))

        return pod_of_threads.run(monkeypatch, len(judges), process)

    return start


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_output_of_several_processes_is_that_of_one(tmp_path, target, pod, count):
    source = write(tmp_path / "in.jsonl", MIXED)
    alone = run(source, tmp_path / "alone.jsonl")
    judges = [Judge() for _ in range(count)]
    summaries = pod(judges, source, target)
    assert target.read_bytes() == (tmp_path / "alone.jsonl").read_bytes() and str(summaries[0]) == str(alone)
    assert {n: (r["id"], r["error"]) for n, r in enumerate(read(target), 1) if "error" in r} == ERRORS
    assert sorted(id for judge in judges for id in judge.asked) == ["14", "a", "b", "c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["alone.jsonl", "alone.jsonl.settings.json", "in.jsonl", "out.jsonl", "out.jsonl.settings.json"]
    )


def test_no_process_goes_on_before_the_output_is_closed(tmp_path, target, pod, monkeypatch):
    """In a bucket it is in parts until then."""
    close, closed = append_only.LocalFile.close, []

    def slowly(file):
        time.sleep(0.05)
        close(file)
        closed.append(str(file._path))

    monkeypatch.setattr(append_only.LocalFile, "close", slowly)
    source = write(tmp_path / "in.jsonl", LINES)
    assert pod([Judge(), Judge()], source, target, then=lambda _: str(target) in closed) == [True, True]


def test_killed_on_three_then_two_then_one_and_nothing_is_lost_or_judged_twice(tmp_path, target, pod):
    source = write(tmp_path / "in.jsonl", LINES)
    run(source, tmp_path / "alone.jsonl")
    with pytest.raises(KeyboardInterrupt):
        run(source, target, Judge(breaks_at="3"))
    lives, judged = [], ["1", "2"]
    # Three processes, of which one breaks early; then two; a last line is cut, as by a kill; then one, which breaks; then one.
    for breaks in (["12", None, None], [None, "21"]):
        judges = [Judge(window=2, breaks_at=id) for id in breaks]
        ended = pod(judges, source, target)
        assert any(isinstance(error, KeyboardInterrupt) for error in ended)
        lives.append(judges)
    held = sorted((tmp_path / "out.jsonl.shares").iterdir())
    assert [path.name for path in held] == ["00000.jsonl", "00001.jsonl", "kept.jsonl"]
    torn = held[0].read_bytes()
    held[0].write_bytes(torn[:-5])
    again = json.loads(torn.splitlines()[-1])["record"]["id"]
    for breaks_at in ("21", None):
        judge = Judge(window=1, breaks_at=breaks_at)
        try:
            run(source, target, judge)
        except KeyboardInterrupt:
            assert breaks_at
        lives.append([judge])
    for judges in lives:
        for judge in judges:
            judged += [id for id in judge.asked if id != judge.breaks_at]
    assert sorted(judged, key=int) == sorted([*map(str, range(1, 24)), again], key=int)
    assert target.read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    assert not (tmp_path / "out.jsonl.shares").exists()
    before = target.read_bytes()
    files.judge_file(source, str(target), unscored, options={}, settings=SETTINGS)
    assert target.read_bytes() == before


def test_shares_of_other_settings_or_another_input_are_refused_by_all(tmp_path, target, pod):
    source = write(tmp_path / "in.jsonl", LINES)
    pod([Judge(breaks_at="9"), Judge(breaks_at="10")], source, target)
    kept = {path.name for path in (tmp_path / "out.jsonl.shares").iterdir()}
    for error in pod([Judge(), Judge()], source, target, settings=SETTINGS | {"seed": 1}):
        assert isinstance(error, InputError) and "begun with --seed=0, not 1" in str(error)
    other = write(tmp_path / "other.jsonl", [*LINES[:2], comparison("3", ["x", "y"]), *LINES[3:]])
    for error in pod([Judge(), Judge()], other, target):
        assert isinstance(error, InputError) and "answers other texts" in str(error)
    assert {path.name for path in (tmp_path / "out.jsonl.shares").iterdir()} - {"kept.jsonl.partial"} == kept
    assert target.read_bytes() == b""


def test_what_is_no_file_is_refused_by_several_processes(target, pod, tmp_path):
    source = write(tmp_path / "in.jsonl", LINES)
    for error in [*pod([Judge(), Judge()], "-", target), *pod([Judge(), Judge()], source, "-")]:
        assert isinstance(error, InputError) and "several processes need a file" in str(error)


def test_a_bad_line_that_is_fatal_ends_its_process_and_what_was_judged_is_kept(tmp_path, target, pod):
    source = write(tmp_path / "in.jsonl", [*LINES[:5], b"{", *LINES[5:]])
    ended = pod([Judge(), Judge()], source, target, on_bad="fatal")
    assert any(isinstance(error, InputError) and f"{source}:6: not JSON" in str(error) for error in ended)
    judges = [Judge(), Judge()]
    pod(judges, source, target)
    assert len(read(target)) == 24 and not {"1", "2", "3", "4", "5"} & {id for judge in judges for id in judge.asked}
