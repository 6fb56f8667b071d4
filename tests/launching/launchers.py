"""Runs launchers as a user does."""

import os
import pathlib
import subprocess
import sys

import commands

ROOT = pathlib.Path(__file__).parents[2]


def launch(script, *arguments, path=None, anew=False, **environment):
    """`python launch/SCRIPT.py ARGUMENTS`, from the repository, of an interpreter that has begun `anew` or of `commands`.

    `path` is a directory of stand-ins for other commands.
    """
    variables = {"PYTHONPATH": str(ROOT)} | environment
    if path:
        variables["PATH"] = f"{path}{os.pathsep}{os.environ['PATH']}"
    if anew:
        command = [sys.executable, ROOT / "launch" / f"{script}.py", *arguments]
        return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
    return commands.completed(ROOT / "launch" / f"{script}.py", *arguments, cwd=ROOT, env=variables)


def stand_in(directory, name, script):
    """A command `name` in `directory` that runs Python code."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
