"""Workdirs that are none."""

import pytest

from spct_jax.errors import InputError
from spct_jax.reporting import run_files


def test_not_a_workdir(tmp_path):
    with pytest.raises(InputError, match="has no config.json"):
        run_files.read_run_files(tmp_path)
    (tmp_path / "config.json").write_text("{\n")
    with pytest.raises(InputError, match=r"config.json:2: not JSON"):
        run_files.read_run_files(tmp_path)


def test_a_temperature_of_any_form_is_read(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "evaluate").mkdir()
    for name in ("rl_sampled", *(f"rl_sampled_T{temperature}" for temperature in (0.5, 2e-5, 100.0)), "rl_sampled.partial"):
        (tmp_path / "evaluate" / f"{name}.jsonl").write_text("")
    assert set(run_files.read_run_files(tmp_path).samples) == {"rl", "rl@T0.5", "rl@T2e-05", "rl@T100.0"}


def test_damaged_metrics_cost_their_curve_and_no_more(tmp_path, capsys):
    for name, content in (("config.json", "{}"), ("sft/metrics.jsonl", '{"step": 0}\n'), ("rl/metrics.jsonl", '{"stgp": 0}\n')):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert run_files.read_run_files(tmp_path).curves == {"sft": [{"step": 0}], "rl": []}
    assert "rl/metrics.jsonl:1: not the metrics of a step; the report does without" in capsys.readouterr().err
