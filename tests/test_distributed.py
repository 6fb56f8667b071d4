"""How processes come together and end: which machines join by themselves, and what the launcher makes of a signal."""

import glob
import importlib.util
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest

from spct_jax import distributed
from spct_jax.errors import InputError

LAUNCHER = pathlib.Path(__file__).parents[1] / "launch" / "local.py"


@pytest.mark.parametrize(
    ("files", "platforms", "installed", "joins"),
    [
        (["/dev/accel0"], "", True, True),
        (["/dev/vfio/0"], "tpu,cpu", True, True),
        (["/dev/accel0"], "cpu", True, False),
        (["/dev/accel0"], "", False, False),
        ([], "", True, False),
    ],
)
def test_a_machine_with_chips_joins_its_slice(monkeypatch, files, platforms, installed, joins):
    calls = []
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(glob, "glob", lambda pattern: [f for f in files if f.startswith(pattern.partition("[")[0])])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **options: calls.append((args, options)))
    distributed.initialize(heartbeat_seconds=7)
    assert calls == [((), {"heartbeat_timeout_seconds": 7, "shutdown_timeout_seconds": 21})] * joins


@pytest.mark.parametrize(("message", "alone"), [("coordinator_address should be defined.", True), ("no such worker", False)])
def test_chips_of_no_cluster_are_alone(monkeypatch, message, alone):
    def refuse(**_):
        raise ValueError(message)

    monkeypatch.setattr(distributed, "_has_tpu", lambda: True)
    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    if alone:
        distributed.initialize()
    else:
        with pytest.raises(ValueError, match=message):
            distributed.initialize()


@pytest.mark.parametrize("wrong", [{"num_processes": 2}, {"process_id": 1}, {"coordinator": "a:1", "process_id": 1}])
def test_flags_that_do_not_go_together_are_named(wrong):
    with pytest.raises(InputError, match="process"):
        distributed.initialize(**wrong)


def test_a_signal_before_the_run_listens_is_no_reason_to_start_again(tmp_path):
    started = tmp_path / "started"
    sleep = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(60)"
    command = [sys.executable, LAUNCHER, "--processes=1", "--", sys.executable, "-c", sleep]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as launcher:
        while not started.exists():
            assert launcher.poll() is None
            time.sleep(0.05)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(timeout=30) == 75
        assert "restart" not in launcher.stderr.read()
