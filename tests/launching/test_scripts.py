"""Shell scripts and the Dockerfile, as their linters see them, and the Dockerfile as its rehearsal does."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest
from launchers import ROOT, launch
from rehearse_image import instructions

LAUNCH = ROOT / "launch"


@pytest.mark.parametrize(
    ("linter", "files"),
    [("shellcheck", sorted(LAUNCH.glob("*.sh"))), ("hadolint", [LAUNCH / "Dockerfile"])],
    ids=["sh", "docker"],
)
def test_linters_find_nothing(linter, files):
    # An environment's programs need not be on the path of who calls its Python, as the README does.
    program = shutil.which(linter, path=pathlib.Path(sys.executable).parent) or shutil.which(linter)
    if program is None:
        pytest.skip(f"needs {linter} (pip install -e '.[dev]')")
    done = subprocess.run([program, *files], capture_output=True, text=True)
    assert files and done.returncode == 0, done.stdout


def test_the_image_runs_what_launchers_start():
    found = dict(instructions((LAUNCH / "Dockerfile").read_text()))
    assert found["ENTRYPOINT"] == '["bash", "launch/entrypoint.sh"]' and found["CMD"].startswith('["train", "--workdir=')
    assert found["USER"] != "0" and re.fullmatch(r"python:3\.11\.\d+-slim-\w+", found["FROM"])
    copied = {rest.split()[0] for name, rest in instructions((LAUNCH / "Dockerfile").read_text()) if name == "COPY"}
    assert {"spct_jax", "experiments", "launch"} <= copied


@pytest.mark.parametrize("script", ["gke", "local", "tpu_vm"])
def test_an_interrupt_while_a_launcher_is_imported_is_one_line(tmp_path, script):
    for library in ("absl", "argparse"):
        (tmp_path / f"{library}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit(3)\n")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = launch(script, anew=True, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_every_library_of_the_package_is_pinned():
    lines = (LAUNCH / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if not line.startswith("#")}
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines if not line.startswith("#"))
    block = (ROOT / "setup.py").read_text().partition("install_requires=[")[2].partition("]")[0]
    needed = {name.replace("_", "-").lower() for name in re.findall(r'"([\w-]+)"', block)} | {"jax", "jaxlib", "libtpu"}
    assert {"flax", "pyyaml"} < needed <= pinned, needed - pinned


def test_without_xmanager_its_launcher_is_one_line_and_exit_2():
    code = "import runpy, sys; sys.modules['xmanager'] = None; runpy.run_path('launch/xm_launch.py')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: needs XManager (pip") and done.stderr.count("\n") == 1
