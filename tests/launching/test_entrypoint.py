"""The script that starts commands on a host, with a stand-in for the package."""

import os
import signal
import subprocess
import time

import limits
import pytest
from launchers import ROOT

SCRIPT = ROOT / "launch" / "entrypoint.sh"
STAND_IN = """
import os, signal, sys, time
if "--listen" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), os._exit(int(sys.argv[-1]))))
print("up", os.getpid(), sys.argv[1:], flush=True)
if "--end" in sys.argv:
    sys.exit(int(sys.argv[-1]))
time.sleep(60)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A directory with a package whose training is the stand-in."""
    directory = tmp_path_factory.mktemp("stand_in")
    (directory / "spct_jax").mkdir()
    (directory / "spct_jax" / "__init__.py").touch()
    (directory / "spct_jax" / "train.py").write_text(STAND_IN)
    return directory


def start(package, *arguments):
    return subprocess.Popen(
        ["bash", SCRIPT, *arguments], cwd=package, env=os.environ | {"PYTHONPATH": ""}, stdout=-1, stderr=-1, text=True
    )


@pytest.mark.parametrize("status", [0, 2, 3, 75])
def test_it_ends_with_the_commands_status_and_logs_what_it_ran(package, status):
    out, err = (run := start(package, "train", "a  'b\"", "--end", str(status))).communicate(timeout=limits.SECONDS)
    assert run.returncode == status
    assert str(["a  'b\"", "--end", str(status)]) in out
    assert ": python -m spct_jax.train a\\ \\ \\'b\\\" --end" in err and f"with status {status}" in err


@pytest.mark.parametrize(
    ("arguments", "status"), [(("--listen", "75"), 75), (("--listen", "2"), 2), (("--listen", "0"), 0), ((), 75)]
)
def test_the_first_signal_is_passed_on_and_a_command_that_does_not_listen_yet_was_told_to_stop(package, arguments, status):
    with start(package, "train", *arguments) as run:
        assert run.stdout.readline().startswith("up")
        run.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        if run.poll() is None:
            run.send_signal(signal.SIGTERM)  # would end the command, were it passed on
        assert run.wait(timeout=limits.SECONDS) == status
        assert "told to stop at" in run.stderr.read()


def test_the_command_dies_with_it(package):
    with start(package, "train") as run:
        pid = int(run.stdout.readline().split()[1])
        run.kill()
        run.wait()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and alive(pid):
            time.sleep(0.02)
        assert not alive(pid)


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_without_a_command_it_says_how_it_is_used(package):
    run = start(package)
    assert "usage" in run.communicate()[1] and run.returncode == 2
