"""`experiments/studies/gpu_check.py`: the least that a token of decoding needs, and what is left of a phase that is cut off."""

import dataclasses
import json
import pathlib
import subprocess

import pytest

from spct_jax.models import flops

STUDIES = pathlib.Path(__file__).parents[2] / "experiments" / "studies"


@pytest.fixture(scope="module")
def gpu_check():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(STUDIES)
        import gpu_check

        yield gpu_check


def test_a_decode_step_reads_parameters_trunks_and_own_tokens_once(gpu_check):
    model = dataclasses.replace(gpu_check.make_case(tiny=True).model, window=12)  # one local layer, one global
    moved, done = gpu_check.decode_work(model, 1000.0, rows=2, branches=3, trunk=20, completion=9)
    token = 2 * 2 * 16 * 2  # keys and values, heads, their width, bytes
    local, everywhere = 2 * (12 + 3 * 5), 2 * (20 + 3 * 5)  # rows; 5 tokens of a branch in the mean
    assert moved == 1000 + token * (local + everywhere)
    assert done == flops.decode(model, 6, 20, 5)


def test_a_phase_that_is_cut_off_keeps_what_it_found(gpu_check, tmp_path, monkeypatch):
    part = tmp_path / "part"

    def cut_off(command, **_):
        part.write_text(json.dumps({"limits": 1}))
        raise subprocess.TimeoutExpired(command, 3)

    monkeypatch.setattr(subprocess, "run", cut_off)
    found = gpu_check.in_process("speed", part, tiny=True, seconds=3)
    assert found["limits"] == 1 and found["error"] == "cut off after 3 s" and not part.exists()
