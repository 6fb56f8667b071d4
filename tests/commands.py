"""Runs commands as a user types them, each in a process of its own that need not import anything again.

    python tests/commands.py < cases.json > outcomes.json

A case is {"argv": [module or file, flags..], "env": {..}, "shell": redirections as of `REDIRECTIONS`, "unbuffered": as
`python -u` does, "limit": bytes that a
file may grow to}. Processes are forked off one that has imported all of the package.
"""

import importlib
import json
import os
import pathlib
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback

import jax
import limits

_ENTRIES = ("train", "judge", "evaluate", "convert", "plan", "data.__main__")
MODULES = [f"spct_jax.{name}" for name in _ENTRIES]
REDIRECTIONS = {"<&-": (0, None), ">&-": (1, None), "2>&-": (2, None), ">/dev/full": (1, "/dev/full")}


def run(cases):
    """Outcomes of cases, in their order: {"status", "out", "err"}."""
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(cases), capture_output=True, text=True, timeout=limits.SECONDS
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _child(case, out, err):
    signal.alarm(limits.SECONDS)
    environment = case.get("env", {})
    os.environ.update(environment)
    if "JAX_PLATFORMS" in environment:  # JAX read it when it was imported
        jax.config.update("jax_platforms", environment["JAX_PLATFORMS"])
    for number, file in ((1, out), (2, err)):
        os.dup2(file.fileno(), number)
    for redirection in case.get("shell", ()):
        number, target = REDIRECTIONS[redirection]
        os.close(number)
        if target:
            assert os.open(target, os.O_WRONLY) == number
    if limit := case.get("limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    # As the interpreter sets them up when it starts.
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        closed = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-"}[name] in case.get("shell", ())
        errors = "backslashreplace" if number == 2 else "strict"
        stream = None if closed else open(number, "r" if number == 0 else "w", encoding=encoding, errors=errors, closefd=False)
        if number and stream and case.get("unbuffered"):
            stream.reconfigure(write_through=True)
        setattr(sys, name, stream)
    sys.argv = case["argv"]
    target, status = case["argv"][0], 0
    sys.modules.pop(target, None)  # it runs as __main__
    try:
        runpy.run_path(target, run_name="__main__") if target.endswith(".py") else runpy.run_module(target, run_name="__main__")
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:  # what the interpreter says of its last flush
            status = 120
    os._exit(status)


def main():
    """Reads cases, writes outcomes."""
    cases = json.load(sys.stdin)
    for module in MODULES:
        importlib.import_module(module)
    outcomes = []
    for case in cases:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if not pid:
                _child(case, out, err)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
            outcomes.append({"status": status, "out": texts[0], "err": texts[1]})
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
