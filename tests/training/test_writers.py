import json
import math

import pytest

from spct_jax.errors import InputError
from spct_jax.training.writers import MetricWriter, read_metrics


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


@pytest.mark.parametrize(("line", "message"), [("{oops", "metrics.jsonl:2: not JSON"), ("[1]", "expected a JSON object")])
def test_a_damaged_file_is_named(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n' + line + '\n{"step": 2}\n')
    with pytest.raises(InputError, match=message):
        read_metrics(path)
