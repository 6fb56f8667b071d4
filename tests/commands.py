"""Runs commands as a user types them, each in a process of its own that need not import anything again.

    python tests/commands.py < cases.jsonl > outcomes.jsonl

A case is {"argv": [module or file, flags..], "env": all variables, "cwd": where, "shell": redirections as of `REDIRECTIONS`,
"unbuffered": as `python -u` does, "limit": bytes that a file may grow to}. Processes are forked off one that has imported the
package; all tests of one process share it.
"""

import atexit
import functools
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
_ENTRIES += ("launching.jobset", "launching.kubectl", "launching.cluster", "launching.flags")
MODULES = [f"spct_jax.{name}" for name in _ENTRIES]
REDIRECTIONS = {"<&-": (0, None), ">&-": (1, None), "2>&-": (2, None), ">/dev/full": (1, "/dev/full")}


@functools.cache
def _server():
    """Takes cases and answers outcomes, a line each, until this process ends."""
    server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


def run(cases):
    """Outcomes of cases, in their order: {"status", "out", "err"}. "env" need only say what differs from this process's."""
    outcomes = []
    for case in cases:
        case = case | {"env": os.environ | case.get("env", {}), "cwd": str(case.get("cwd", os.getcwd()))}
        _server().stdin.write(json.dumps(case) + "\n")
        _server().stdin.flush()
        outcomes.append(json.loads(_server().stdout.readline()))
    return outcomes


def completed(*argv, **case):
    """What `subprocess.run` returns, with its output captured as text, of one command."""
    (outcome,) = run([case | {"argv": [str(one) for one in argv]}])
    return subprocess.CompletedProcess(argv, outcome["status"], outcome["out"], outcome["err"])


def _child(case, out, err):
    signal.alarm(limits.SECONDS)
    os.chdir(case["cwd"])
    os.environ.clear()
    os.environ.update(case["env"])
    jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS"))  # JAX read it when it was imported
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the cases are not the command's
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
    for module in MODULES:
        importlib.import_module(module)
    for line in sys.stdin:
        case = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if not pid:
                _child(case, out, err)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
            print(json.dumps({"status": status, "out": texts[0], "err": texts[1]}), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
