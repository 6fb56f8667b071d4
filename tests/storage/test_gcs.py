"""Buckets: what is written, appended to, locked, copied here and read there, on a server that keeps what a bucket keeps."""

import json
import threading
import time

import aiohttp
import buckets
import gcsfs.retry
import jax
import jax.numpy as jnp
import judge_stand_in
import numpy as np
import pytest

from spct_jax import errors
from spct_jax.checkpoints import restore, steps, train_state
from spct_jax.data import sources
from spct_jax.data.formats import open_rows
from spct_jax.data.kinds import COMPARISONS
from spct_jax.errors import InputError
from spct_jax.reporting.run_files import read_run_files
from spct_jax.storage import append_only, files, gcs, lease, local_copies, locks, paths
from spct_jax.storage.append_only import Appended
from spct_jax.training import provenance
from spct_jax.training.metric_writer import MetricWriter, read_metrics

MISSING = "gs://no-such-bucket"


@pytest.fixture(scope="module", autouse=True)
def server():
    with buckets.served() as url, buckets.pointed_to(url):
        yield url


@pytest.fixture
def bucket(request, tmp_path, monkeypatch):
    """A name in the bucket of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return paths.parse(f"{buckets.BUCKET}/{abs(hash(request.node.nodeid)):x}", "--workdir")


def names(folder):
    return sorted(name.partition("/")[2].removeprefix(f"{folder.name}/") for name in gcs.register().find(str(folder)))


def test_a_file_is_replaced_whole_or_not_at_all(bucket):
    path = bucket / "x"
    files.write(path, "old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert files.read_bytes(path) == b"old" and files.size(path) == 3
    files.write_array(bucket / "x.npy", np.arange(3))
    assert files.read_array(bucket / "x.npy").tolist() == [0, 1, 2]
    assert files.matching(bucket, "*.npy") == [bucket / "x.npy"] and files.matching(bucket / "none", "*") == []


def test_a_new_directory_is_there_whole_and_what_readers_look_for_last(bucket, monkeypatch):
    put = []
    monkeypatch.setattr(files, "_put", lambda source, target: put.append(target.name))
    with pytest.raises(ZeroDivisionError), files.new_directory(bucket / "model"):
        raise ZeroDivisionError
    assert put == []
    with files.new_directory(bucket / "model") as scratch:
        for name in ("model.json", "tokenizer.model", "a"):
            (scratch / name).write_text(name)
    assert put == ["a", "tokenizer.model", "model.json"] and not scratch.exists()


def test_a_directory_is_moved(bucket):
    for name in ("4/a", "4/b/c", "42/d"):
        files.write(bucket / name, name)
    files.move(bucket / "4", bucket / "damaged" / "4-1")
    assert names(bucket) == ["42/d", "damaged/4-1/a", "damaged/4-1/b/c"]


def test_an_object_is_written_once(bucket):
    files.create(bucket / "x", b"1")
    files.create(bucket / "x", b"1")  # the same request again, whose answer was lost
    with pytest.raises(InputError, match="/x: another run has written it"):
        files.create(bucket / "x", b"2")


def test_lines_are_appended_in_parts_which_are_joined_at_the_end(bucket, monkeypatch):
    monkeypatch.setattr(append_only, "PART_BYTES", 18)
    path, wanted = bucket / "x.jsonl", b""
    with pytest.raises(ZeroDivisionError), Appended(path) as file:
        for number in range(5):
            file.write({"a": number})
            wanted += json.dumps({"a": number}).encode() + b"\n"
        raise ZeroDivisionError
    assert names(bucket) == [f"x.jsonl.parts/000000000000000-00000000000{n}" for n in (0, 2, 4)]
    with append_only.reading(path) as file:
        assert file.read() == wanted
    with Appended(path) as file:
        assert file.lines == 5
        file.write({"a": 5})
    assert names(bucket) == ["x.jsonl"] and path.read_bytes() == wanted + b'{"a": 5}\n'
    with Appended(path) as file:  # another input may be longer
        assert file.lines == 6


def test_a_kill_at_any_request_loses_the_last_part_at_most(bucket, monkeypatch):
    """A writer dies at its first, second, ... request; the next one goes on after whole lines and ends with the same file."""
    monkeypatch.setattr(append_only, "PART_BYTES", 1)  # a part a line
    call, left = gcs.FileSystem._call, 0

    class Killed(BaseException):
        pass

    async def mortal(self, method, *args, **kwargs):
        nonlocal left
        if method in ("POST", "PUT", "DELETE"):
            left -= 1
            if left < 0:
                raise Killed
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(gcs.FileSystem, "_call", mortal)
    for allowed in range(12):
        path, left = bucket / f"{allowed}.jsonl", allowed
        written = 0
        try:
            with Appended(path) as file:
                for number in range(4):
                    file.write({"a": number})
                    written += 1
        except Killed:
            pass
        left = 1000
        with append_only.reading(path) if append_only.exists(path) else open("/dev/null", "rb") as file:
            assert len(file.readlines()) == written
        with Appended(path) as file:
            assert file.lines == written
            for number in range(written, 4):
                file.write({"a": number})
        assert path.read_bytes() == b"".join(b'{"a": %d}\n' % number for number in range(4))
        assert not names(bucket / f"{path.name}.parts")


def test_a_file_that_was_cut_on_a_disk_goes_on_after_its_last_whole_line(bucket):
    path = bucket / "x.jsonl"
    files.write(path, '{"a": 0}\n{"a"')
    with Appended(path) as file:
        assert file.lines == 1
        file.write({"a": 1})
    assert path.read_bytes() == b'{"a": 0}\n{"a": 1}\n'


def test_a_missing_part_is_named(bucket):
    files.write(bucket / "x.jsonl.parts" / "000000000000000-000000000002", "{}\n")
    with pytest.raises(InputError, match="x.jsonl: line 1 is missing"):
        Appended(bucket / "x.jsonl")


def test_metrics_of_a_resumed_run_are_those_of_an_undisturbed_one(bucket):
    def write(directory, numbers, resume_step=0, dies=False):
        writer = MetricWriter(directory, resume_step)
        for step in numbers:
            writer.write(step, {"loss": float(step)})
        writer.flush()
        if not dies:
            writer.close()

    write(bucket / "whole", range(8))
    write(bucket / "killed", range(6), dies=True)
    assert len(read_metrics(bucket / "killed" / "metrics.jsonl")) == 6
    write(bucket / "killed", range(4, 8), resume_step=4)
    assert (bucket / "killed" / "metrics.jsonl").read_bytes() == (bucket / "whole" / "metrics.jsonl").read_bytes()
    events = [name for name in names(bucket) if "tfevents" in name and name.startswith("killed")]
    assert len(events) >= 2 and len(names(bucket)) == len(set(names(bucket)))
    files.write_json(bucket / "config.json", {})
    assert read_run_files(bucket).stages == {}


def test_a_second_run_is_refused_and_a_dead_one_is_not_waited_for(bucket, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "PATIENCE", 5.0)
    monkeypatch.setattr(lease.Lease, "_owner_is_gone", lambda self: False)  # as if it ran elsewhere
    with locks.locked_directory(bucket):
        with pytest.raises(InputError, match="another run is under way in it"), locks.locked_directory(bucket):
            pass
    assert names(bucket) == []
    with locks.locked_directory(bucket):
        pass


def test_a_lock_whose_owner_writes_no_more_is_taken_over(bucket, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.1)
    monkeypatch.setattr(lease, "PATIENCE", 0.4)
    other = {"host": "x", "pid": 1, "boot": "other", "namespace": "other", "token": "t"}
    files.write_json(bucket / ".lock", other)
    begun = time.monotonic()
    with locks.locked_directory(bucket):
        assert time.monotonic() - begun >= 0.4


def test_a_lock_whose_owner_ran_here_and_is_gone_is_taken_at_once(bucket):
    files.write_json(bucket / ".lock", lease._this_process() | {"pid": 2**22 + 1, "token": "t"})
    begun = time.monotonic()
    with locks.locked_directory(bucket):
        assert time.monotonic() - begun < 2


def test_of_many_that_want_a_dead_runs_lock_one_gets_it(bucket, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "PATIENCE", 0.3)
    monkeypatch.setattr(lease.Lease, "_owner_is_gone", lambda self: False)  # they share a process number
    files.write_json(bucket / ".lock", {"token": "t"})
    got, hold = [], threading.Event()

    def want():
        try:
            with lease.Lease(bucket / ".lock", "another has it"):
                got.append(True)
                hold.wait(5)
        except InputError:
            got.append(False)
            if len(got) == 4:
                hold.set()

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(got) < 4 and any(thread.is_alive() for thread in threads):
        time.sleep(0.02)
    hold.set()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False, False, False, True]


def records(numbers):
    return [{"id": f"c{n}", "query": f"question {n}", "responses": ["yes", "no"], "best": 0} for n in numbers]


def as_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("directory", ["bucket", "disk"])
def test_a_source_in_a_bucket_is_read_as_one_on_a_disk(bucket, tmp_path, directory):
    import gzip

    (tmp_path / "a.jsonl").write_text(as_lines(records(range(3))))
    (tmp_path / "b.jsonl").write_text(as_lines(records(range(3, 5))))
    files.write(bucket / "a.jsonl", as_lines(records(range(3))))
    files.write(bucket / "b.jsonl", as_lines(records(range(3, 5))))
    files.write(bucket / "c.jsonl.gz", gzip.compress(as_lines(records(range(2))).encode()))
    kept = bucket / "data" if directory == "bucket" else tmp_path

    def read(place, name):
        found, report = sources.open_source(place, COMPARISONS, directory=kept, name=name)
        return [found[i] for i in range(len(found))], [found.where(i) for i in range(len(found))], report

    here, there = read(f"{tmp_path}/[ab].jsonl", "here"), read(f"{bucket}/[ab].jsonl", "there")
    assert here[0] == there[0] and here[2] == there[2]
    assert there[1][3] == f"{bucket}/b.jsonl:1"
    assert read(f"{bucket}/[ab].jsonl", "there")[0] == there[0]  # by what was kept
    assert len(read(f"{bucket}/c.jsonl.gz", "zipped")[0]) == 2
    with pytest.raises(InputError, match=f"{bucket}/none.jsonl: cannot read the file"):
        read(f"{bucket}/none.jsonl", "none")
    files.write(bucket / "a.jsonl", as_lines(records(range(1))))
    assert len(read(f"{bucket}/[ab].jsonl", "there")[0]) == 3


def test_a_copy_is_made_again_when_the_object_is_another(bucket):
    files.write(bucket / "x.json", "[{}]")
    copy = local_copies.of_file(bucket / "x.json")
    made = copy.stat().st_ino
    assert local_copies.of_file(bucket / "x.json").stat().st_ino == made
    assert len(open_rows(f"{bucket}/x.json")) == 1
    files.write(bucket / "x.json", "[[]]")
    assert local_copies.of_file(bucket / "x.json").read_text() == "[[]]"


TREE = {"a": jnp.arange(1000.0)}
TARGET = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])), TREE
)


def test_steps_are_saved_kept_and_restored_and_one_without_its_mark_is_none(bucket):
    for first in (1, 3):
        with steps.manager(bucket, keep=2) as manager:
            for step in (first, first + 1):
                steps.save(manager, step, jax.tree.map(lambda x, s=step: x + s, TREE), TREE, {"tokens": 5.0})
    assert steps.listed(bucket) == [4, 3]
    found = restore.read_newest(bucket, {"params": TARGET, "opt_state": TARGET})
    assert found.step == 4 and np.array_equal(found.trees["params"]["a"], TREE["a"] + 4)
    (bucket / "checkpoints" / "4" / gcs.COMMITTED).unlink()
    assert restore.read_newest(bucket, {"params": TARGET}).step == 3
    with steps.manager(bucket, keep=2) as manager:  # what is left of 4 is in nobody's way
        steps.save(manager, 4, TREE, TREE)
    assert steps.listed(bucket)[0] == 4


def test_a_damaged_step_is_set_aside(bucket, capsys):
    with steps.manager(bucket, keep=2) as manager:
        for step in (1, 2):
            steps.save(manager, step, TREE, TREE)
    files.write(bucket / "checkpoints" / "2" / "digests" / "metadata", "{}")
    target = train_state.TrainState(params=TARGET, opt_state=TARGET)
    step, _, _ = train_state.restore_newest(target, bucket)
    assert step == 1 and "checkpoint 2 is damaged" in capsys.readouterr().err
    assert steps.listed(bucket) == [1] and any(name.startswith("damaged/2-") for name in names(bucket))


def test_a_step_that_is_removed_loses_its_mark_first(bucket, monkeypatch):
    removed, one = [], gcs.FileSystem._rm_file

    async def note(self, path, **kwargs):
        removed.append(path.rpartition("/")[2])
        await one(self, path, **kwargs)

    monkeypatch.setattr(gcs.FileSystem, "_rm_file", note)
    for name in ("a", "z", gcs.COMMITTED):
        files.write(bucket / "5" / name, "x")
    (bucket / "5").rmtree()
    assert removed[0] == gcs.COMMITTED and {"a", "z"} < set(removed[1:]) and not (bucket / "5").exists()


def test_what_fails_is_said_in_one_line_and_a_network_error_may_pass():
    with pytest.raises(InputError, match=f"^{MISSING}: no such bucket$"), locks.locked_directory(f"{MISSING}/run"):
        pass
    for code, status in ((401, errors.WRONG), (403, errors.WRONG), (503, errors.FAILED), (429, errors.FAILED)):
        told = gcs._described(gcsfs.retry.HttpError({"code": code, "message": "no"}), "gs://b/x")
        line, found = errors.describe(told)
        assert found == status and line.startswith("gs://b/x: ") and "\n" not in line
    lost = gcs._described(aiohttp.ClientConnectionError("reset"), "gs://b/x")
    assert errors.describe(lost) == ("gs://b/x: cannot be reached (reset)", errors.FAILED) and not isinstance(lost, OSError)
    by_text = ValueError("UNAVAILABLE: Error writing 'gs://b/x' in upload: CURL error")
    assert errors.describe(by_text)[1] == errors.FAILED and errors.is_unreachable(by_text)


def test_a_bucket_out_of_reach_is_not_taken_for_damage(bucket, monkeypatch):
    with steps.manager(bucket) as manager:
        steps.save(manager, 1, TREE)

    async def out_of_reach(*_, **__):
        raise aiohttp.ClientConnectionError("reset")

    monkeypatch.setattr(gcs.gcsfs.core.GCSFileSystem, "_call", out_of_reach)
    with pytest.raises(errors.UnreachableError, match="cannot be reached"):
        restore.read_newest(bucket, {"params": TARGET})


def test_the_judge_reads_and_writes_in_a_bucket_and_goes_on_there_after_a_kill(bucket, tmp_path):
    source, target = bucket / "in.jsonl", bucket / "out.jsonl"
    files.write(source, b"\n".join(judge_stand_in.MIXED) + b"\n")
    judge_stand_in.run(judge_stand_in.write(tmp_path / "in.jsonl", judge_stand_in.MIXED), tmp_path / "out.jsonl")
    with pytest.raises(KeyboardInterrupt):
        judge_stand_in.run(source, target, judge_stand_in.Judge(breaks_at="c"))
    assert not target.exists() and append_only.exists(target)
    judge = judge_stand_in.Judge()
    judge_stand_in.run(source, target, judge)
    assert judge.asked[0] == "c" and target.read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    assert names(bucket) == ["in.jsonl", "out.jsonl", "out.jsonl.settings.json"]
    with pytest.raises(InputError, match=f"^{MISSING}: no such bucket$"):
        judge_stand_in.run(source, f"{MISSING}/out.jsonl")
    with pytest.raises(InputError, match=f"^{bucket}/none.jsonl: cannot read the file"):
        judge_stand_in.run(bucket / "none.jsonl", target)


def test_a_directory_of_a_bucket_is_copied(bucket):
    for name in ("a/x.json", "b.json"):
        files.write(bucket / "bench" / name, name)
    copy = local_copies.of_directory(bucket / "bench")
    assert sorted(path.read_text() for path in copy.rglob("*.json")) == ["a/x.json", "b.json"]
    with pytest.raises(InputError, match="none: no such file or directory"):
        local_copies.of_directory(bucket / "none")


def test_data_that_are_not_there_are_named_before_anything_is_run(bucket):
    with pytest.raises(InputError, match=f"^{bucket}/none.jsonl: cannot read the file"):
        provenance._digest(bucket / "none.jsonl", bucket / "digests.json")
