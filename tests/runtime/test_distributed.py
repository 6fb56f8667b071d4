"""How processes come together and end: which machines join by themselves, and what the launcher makes of a signal."""

import argparse
import glob
import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import limits
import orbax.checkpoint as ocp
import pod_of_threads
import pytest
import requests

from spct_jax import errors
from spct_jax.checkpoints import orbax_arrays
from spct_jax.errors import InputError
from spct_jax.launching import rehearsal
from spct_jax.runtime import distributed

LAUNCHER = pathlib.Path(__file__).parents[2] / "launch" / "local.py"


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


@pytest.mark.parametrize("name", ["TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"])
def test_a_pod_waits_until_the_nodes_of_the_others_are_there(monkeypatch, name):
    calls = []
    monkeypatch.setenv(name, "a,b")
    monkeypatch.setattr(distributed, "_has_tpu", lambda: True)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    distributed.initialize()
    assert calls[0]["initialization_timeout"] == 3600


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


def test_a_rehearsal_without_chips_looks_for_the_others_as_on_tpus(monkeypatch):
    calls = []
    monkeypatch.setenv(distributed.REHEARSED, "gketpu")
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **options: calls.append((args, options)))
    before = jax.config.jax_cpu_collectives_implementation
    try:
        distributed.initialize(heartbeat_seconds=7)
    finally:
        jax.config.update("jax_cpu_collectives_implementation", before)
    assert calls[0][1]["cluster_detection_method"] == "gketpu" and calls[0][1]["heartbeat_timeout_seconds"] == 7
    assert rehearsal.CLUSTER == distributed.REHEARSED


def test_a_metadata_server_that_does_not_answer_may_answer_the_next_time(monkeypatch):
    def refuse(**_):
        raise requests.exceptions.ConnectionError("metadata.google.internal: no such name")

    monkeypatch.setattr(distributed, "_has_tpu", lambda: True)
    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(ConnectionError, match="cannot be found: metadata.google.internal") as caught:
        distributed.initialize()
    assert errors.describe(caught.value) == (str(caught.value), errors.FAILED)


@pytest.mark.parametrize("address", ["x", "x:y", ":", ":80", "x:", "x:0", "x:65536", "a:b:1", "http://x:1", "[::1]", "x :1"])
def test_a_coordinator_that_is_no_address_is_named(monkeypatch, address):
    monkeypatch.setattr(jax.distributed, "initialize", None)
    with pytest.raises(InputError, match=re.escape(f"--coordinator={address}: expected HOST:PORT")):
        distributed.initialize(address)


def test_a_port_in_use_is_one_line_and_may_be_free_the_next_time(monkeypatch):
    def refuse(*_, **__):
        raise jax.errors.JaxRuntimeError("UNKNOWN: Failed to start RPC server")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    before = jax.config.jax_cpu_collectives_implementation
    try:
        for address in ("localhost:8476", "[::1]:8476", "10.0.0.1:8476"):
            with pytest.raises(ConnectionError) as raised:
                distributed.initialize(address)
            line = f"--coordinator={address}: UNKNOWN: Failed to start RPC server"
            assert errors.describe(raised.value) == (line, errors.FAILED)
    finally:
        jax.config.update("jax_cpu_collectives_implementation", before)


@pytest.mark.parametrize("wrong", [{"num_processes": 2}, {"process_id": 1}, {"coordinator": "a:1", "process_id": 1}])
def test_flags_that_do_not_go_together_are_named(wrong):
    with pytest.raises(InputError, match="process"):
        distributed.initialize(**wrong)


@pytest.mark.parametrize(
    ("listen", "echo", "status"),
    [
        ("distributed.PREEMPTION.listen()", 5, 75),
        ("distributed.PREEMPTION.listen()", 0, -signal.SIGTERM),
        ("distributed.stop_at_once()", 5, 75),
        ("interrupts.clean_up()", 5, 143),
    ],
)
def test_a_signal_that_comes_twice_at_once_is_one_signal(listen, echo, status):
    lines = f"""
import os, signal, time
from spct_jax import interrupts
from spct_jax.runtime import distributed
interrupts.ECHO = {echo}
{listen}
def work():
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.raise_signal(signal.SIGTERM)
        print("saved", flush=True)
    distributed.PREEMPTION.check()
distributed.end_together(work)
"""
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=limits.SECONDS)
    assert done.returncode == status and done.stdout == "saved\n" * (echo > 0)


def test_wrong_input_ends_a_process_that_may_be_the_last(monkeypatch, capsys):
    """JAX says how many processes there are once all have come together, and aborts where one has left before."""
    ended, wrong = [], InputError("no such directory")
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_count", lambda: pytest.fail("the others are waited for"))
    monkeypatch.setattr(os, "_exit", ended.append)
    distributed.end_together(lambda: (_ for _ in ()).throw(wrong))
    assert ended == [2] and capsys.readouterr().err == "error: no such directory\n"


def test_a_signal_in_the_midst_of_reading_a_checkpoint_is_no_damage(monkeypatch, tmp_path):
    def told(*_):
        distributed.stop_at_once()
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "metadata", told)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match="75"):
            distributed.end_together(lambda: orbax_arrays.read_tree(tmp_path, {}))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_before_the_run_listens_is_no_reason_to_start_again(tmp_path):
    started = tmp_path / "started"
    sleep = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(60)"
    command = [sys.executable, LAUNCHER, "--processes=1", "--", sys.executable, "-c", sleep]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as launcher:
        while not started.exists():
            assert launcher.poll() is None
            time.sleep(0.05)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(timeout=limits.SECONDS) == 75
        assert "restart" not in launcher.stderr.read()


def test_all_are_there_before_one_does_what_the_others_wait_for(monkeypatch):
    done = []

    def process(index):
        if index:
            raise KeyError("ended before the others")
        return distributed.from_first(lambda: done.append(index))

    ended = pod_of_threads.run(monkeypatch, 2, process)
    assert [type(end) for end in ended] == [RuntimeError, KeyError] and not done


def launch(script, *flags, processes=1):
    """The launcher with a stand-in for training; `script` has the numbers of the life and of the process in LIFE and ID."""
    stand_in = "import os, pathlib, sys, time; ID = int(sys.argv[-1].partition('=')[2]); " + script
    return [sys.executable, LAUNCHER, f"--processes={processes}", *flags, "--", sys.executable, "-c", stand_in]


def counted(lives):
    """Code that counts the lives of a run in a file."""
    return f"open({str(lives)!r}, 'a').write('life '); LIFE = open({str(lives)!r}).read().count('life'); "


@pytest.mark.parametrize(
    ("ending", "status", "lives"),
    [
        ("sys.exit(2)", 2, 1),
        ("sys.exit(1)", 1, 2),  # the same way twice, soon after the start
        ("os.abort()", 1, 2),
        ("sys.exit(LIFE)", 2, 2),  # another way each time: goes on until one is final
        ("os.kill(os.getpid(), 9) if LIFE < 4 else sys.exit(0)", 0, 4),  # being killed says nothing of the next life
        ("sys.exit(0)", 0, 1),
    ],
)
def test_a_run_that_cannot_get_better_is_not_started_for_ever(tmp_path, ending, status, lives):
    command = launch(counted(tmp_path / "lives") + ending, "--longest_wait=0.1")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert (tmp_path / "lives").read_text().count("life") == lives
    assert ("not started again" in done.stderr) == (ending in ("sys.exit(1)", "os.abort()"))


def launcher():
    """The launcher as a module."""
    spec = importlib.util.spec_from_file_location("local", LAUNCHER)
    local = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(local)
    return local


def test_waits_before_restarts_double_up_to_a_limit_and_begin_anew_after_a_long_life(monkeypatch):
    local = launcher()
    patience = local.Patience(short=30, longest=10)
    assert [patience.pause(5, -9) for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    assert patience.pause(31, 1) == 0 and patience.pause(5, 1) == 1 and patience.pause(5, 1) is None
    assert [local.Patience(0, 10).pause(0, 1) for _ in range(2)] == [0, 0]


def test_waits_stay_numbers_however_often_all_are_killed():
    local = launcher()
    patience = local.Patience(short=30, longest=10)
    assert {patience.pause(5, -9) for _ in range(1100)} == {1, 2, 4, 8, 10}
    assert [local.number(*given) for given in ((int, "0"), (float, "0.5"), (int, "1000000"))] == [0, 0.5, 1000000]
    for kind, text in ((int, "-1"), (int, "1.5"), (int, "9" * 5000), (float, "nan"), (float, "inf"), (float, "x")):
        with pytest.raises(argparse.ArgumentTypeError, match="is no (integer|number) from 0 to 1,000,000"):
            local.number(kind, text)


def alive(pid):
    """Whether a process is there and no zombie."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not kill the children of the dead")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 75), (signal.SIGTERM, 75)])
def test_no_process_outlives_the_launcher(tmp_path, number, status):
    script = f"pathlib.Path({str(tmp_path)!r}, str(ID)).write_text(str(os.getpid())); time.sleep(100)"
    with subprocess.Popen(launch(script, processes=2), stderr=subprocess.PIPE, text=True) as launcher:
        until(lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "01"))
        pids = [int((tmp_path / name).read_text()) for name in "01"]
        launcher.send_signal(number)
        assert launcher.wait(timeout=30) == status
    until(lambda: not any(map(alive, pids)))
    assert not any(map(alive, pids))


def until(holds, seconds=30):
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_command_that_is_not_there_is_one_line_and_exit_2(tmp_path):
    done = subprocess.run([sys.executable, LAUNCHER, "--", str(tmp_path / "none")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "none: No such file or directory" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_stop_is_noted_once_and_ends_in_one_line_and_status_75(number, capsys):
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    preemption = distributed.Preemption()
    try:
        preemption.listen()
        assert not preemption.asked()
        signal.raise_signal(number)
        assert preemption.asked()
        with pytest.raises(SystemExit, match="75"):
            distributed.end_together(preemption.check)
        assert capsys.readouterr().err.count("\n") == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
