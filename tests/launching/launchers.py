"""Runs launchers as a user does."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def launch(script, *arguments, path=None, **environment):
    """`python launch/SCRIPT.py ARGUMENTS`, from the repository; `path` is a directory of stand-ins for other commands."""
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    if path:
        variables["PATH"] = f"{path}{os.pathsep}{variables['PATH']}"
    command = [sys.executable, ROOT / "launch" / f"{script}.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120)


def stand_in(directory, name, script):
    """A command `name` in `directory` that runs Python code."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
