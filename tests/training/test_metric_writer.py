import errno
import json
import math
import pathlib
import struct
import subprocess
import sys
import threading

import pytest

from spct_jax.errors import InputError
from spct_jax.training import event_files
from spct_jax.training.event_files import TensorBoard
from spct_jax.training.metric_writer import JsonLines, MetricWriter, read_metrics


def write(directory, steps, resume_step=0):
    with MetricWriter(directory, resume_step) as writer:
        for step in steps:
            writer.write(step, {"loss": 1 / (1 + step), "kl": 0.0})


def test_a_line_a_step_and_tensorboard(tmp_path):
    write(tmp_path / "sft", range(3))
    rows = read_metrics(tmp_path / "sft" / "metrics.jsonl")
    assert rows[2] == {"step": 2, "loss": pytest.approx(1 / 3), "kl": 0.0} and len(rows) == 3
    (events,) = (tmp_path / "sft" / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()


def test_a_resumed_run_leaves_the_file_of_an_undisturbed_one(tmp_path):
    write(tmp_path / "whole", range(8))
    write(tmp_path / "killed", range(6))
    path = tmp_path / "killed" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "lo')
    write(tmp_path / "killed", range(4, 8), resume_step=4)
    assert path.read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_fresh_start_drops_what_was_there(tmp_path):
    write(tmp_path, range(5))
    write(tmp_path, range(2))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1]


def test_lines_survive_without_a_flush(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(0, {"loss": 2.0})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "loss": 2.0}]
    writer.close()


def test_what_is_not_finite_becomes_null(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(0, {"loss": math.nan, "kl": math.inf})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 0, "loss": None, "kl": None}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "metrics.jsonl:2: not JSON"),
        ("[1]", "not a JSON object"),
        ('{"stgp": 1}', "metrics.jsonl:2: not the metrics of a step"),
        ('{"step": 1, "loss": "1"}', "metrics.jsonl:2: not the metrics of a step"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n' + line + '\n{"step": 2}\n')
    with pytest.raises(InputError, match=message):
        read_metrics(path)


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("kind", "name"), [(TensorBoard, "tensorboard"), (JsonLines, "metrics.jsonl")])
def test_a_full_disk_neither_hangs_nor_stops_a_run_and_is_said_once(kind, name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kind, "write", full_disk)

    def run():
        with MetricWriter(tmp_path) as writer:
            for step in range(200):  # more than any queue holds
                writer.write(step, {"loss": 1.0})
                writer.flush()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    said = f"{tmp_path / name}: cannot be written (No space left on device); the run goes on without it\n"
    assert capsys.readouterr().err == said
    if kind is TensorBoard:
        assert len(read_metrics(tmp_path / "metrics.jsonl")) == 200


@pytest.mark.parametrize("dies", ["mkdir", "{oops\n{}\n", '{"stgp": 1}\n{}\n'])
def test_a_writer_that_cannot_even_begin_is_said_once(dies, tmp_path, monkeypatch, capsys):
    if dies == "mkdir":
        monkeypatch.setattr(pathlib.Path, "mkdir", full_disk)
    else:
        (tmp_path / "metrics.jsonl").write_text(dies)
    write(tmp_path, range(3))
    assert capsys.readouterr().err.count("the run goes on without it") == (2 if dies == "mkdir" else 1)


def test_tensorboard_reads_what_is_written_and_a_clock_set_back_does_not_matter(tmp_path, monkeypatch):
    clock = iter(range(10**6, 0, -1000))
    monkeypatch.setattr(event_files.time, "time", lambda: next(clock))
    write(tmp_path, range(30))
    (events,) = (tmp_path / "tensorboard").iterdir()
    content, seen = events.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        seen.append(event_files.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    losses = {e.step: e.summary.value[0].simple_value for e in seen if e.summary.value and e.summary.value[0].tag == "loss"}
    assert losses == {step: pytest.approx(1 / (1 + step)) for step in range(30)} and seen[0].file_version


def test_without_tensorboardx_a_run_has_its_json_lines(tmp_path):
    code = "import sys; sys.modules['tensorboardX'] = None; from spct_jax.training import metric_writer as m\n"
    code += "with m.MetricWriter(sys.argv[1]) as writer: writer.write(0, {'loss': 2.0})"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, timeout=300)
    assert done.stderr.count("tensorboard: cannot be written (") == 1 and "tensorboardX" in done.stderr
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "loss": 2.0}]
