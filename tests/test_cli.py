"""What a command says, and ends with, when it is called wrongly or the system refuses something: one line, no traceback."""

import asyncio
import dataclasses
import gc
import importlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import commands
import pytest
from absl import flags

from spct_jax import cli, errors, interrupts
from spct_jax.errors import InputError
from spct_jax.models import sizes

TINY = pathlib.Path(__file__).parents[1] / "experiments" / "tiny.py"
COMPARISON = json.dumps({"id": "a", "query": "q", "responses": ["x", "y"]})
CONFIGS = {
    "raises": "def get_config():\n    options = {}\n    return options['rate']\n",
    "syntax": "def get_config():\n    return (\n",
    "imports": "import no_such_module\n",
    "leaves": "import sys\nsys.exit('bye')\n",
    "nothing": "def get_config():\n    pass\n",
    "bare": "x = 1\n",
    "fine": "from spct_jax import config\ndef get_config():\n    return config.tiny()\n",
    "field": "from spct_jax import config\ndef get_config():\n    c = config.tiny()\n    c.rl.stepz = 3\n    return c\n",
}
JUDGE = "judge --checkpoint={tmp}/model --input={tmp}/in.jsonl"
TO_FULL_DISK = {"shell": [">/dev/full"]}

# name: (command line, what its one line on standard error holds; None: nothing is printed) and more of the case
CASES = {
    "workdir is a file": ("train --workdir={tmp}/file", "{tmp}/file: cannot be made (File exists)"),
    "workdir below a file": ("train --workdir={tmp}/file/run", "{tmp}/file/run: cannot be made (Not a directory)"),
    "workdir is a device": ("train --workdir=/dev/null", "/dev/null: cannot be made (File exists)"),
    "output below a file": (JUDGE + " --output={tmp}/file/out", "{tmp}/file/out: cannot be written (Not a directory)"),
    "output in no directory": (JUDGE + " --output={tmp}/no/out", "{tmp}/no/out: cannot be written (No such file"),
    "closed input": ("judge --input=- --output={tmp}/o", "--input=-: standard input is closed", {"shell": ["<&-"]}),
    "target below a file": ("convert --from={tmp} --to={tmp}/file/x --format=hf", "{tmp}"),
    "no GPU": ("train --workdir={tmp}/gpu", "JAX finds no devices (JAX_PLATFORMS=cuda)", {"env": {"JAX_PLATFORMS": "cuda"}}),
    "no such platform": (
        "convert --from={tmp} --to={tmp}/x --format=hf",
        "JAX finds no devices (JAX_PLATFORMS=abacus): Unable to initialize backend 'abacus'",
        {"env": {"JAX_PLATFORMS": "abacus"}},
    ),
    "ASCII terminal": (
        "train --workdir={tmp}/caf\u00e9 --config.data.train={tmp}/caf\u00e9\u2713.jsonl",
        "caf\\xe9\\u2713.jsonl",
        {"env": {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}},
    ),
    "unknown ablation": (f"train --workdir={{tmp}}/x --config={TINY}:typo", "unknown ablation 'typo'; known: no_rejection"),
    "config raises": ("train --workdir={tmp}/x --config={tmp}/raises.py", "{tmp}/raises.py:3: KeyError: 'rate'"),
    "config is no Python": ("plan --topology=v5e:2x2 --config={tmp}/syntax.py", "{tmp}/syntax.py:2: '(' was never closed"),
    "config imports nothing": ("train --workdir={tmp}/x --config={tmp}/imports.py", "{tmp}/imports.py:1: ModuleNotFoundError"),
    "config leaves": ("train --workdir={tmp}/x --config={tmp}/leaves.py", "{tmp}/leaves.py:2: SystemExit: bye"),
    "config returns nothing": ("train --workdir={tmp}/x --config={tmp}/nothing.py", "returns NoneType, not a spct_jax.config"),
    "config without function": ("train --workdir={tmp}/x --config={tmp}/bare.py", "{tmp}/bare.py: AttributeError: "),
    "config sets no field": ("train --workdir={tmp}/x --config={tmp}/field.py", "did you mean config.rl.steps?"),
    "config takes no argument": ("train --workdir={tmp}/x --config={tmp}/raises.py:a", "TypeError: get_config() takes 0"),
    "config is a directory": ("train --workdir={tmp}/x --config={tmp}", "--config={tmp}: no such file"),
    "unknown field": ("train --workdir={tmp}/x --config.rl.stepz=3", "did you mean --config.rl.steps?"),
    "section": (
        "train --workdir={tmp}/x --config.rl.optimizer=adam",
        "--config.rl.optimizer: is a section; set its fields, such as --config.rl.optimizer.name",
    ),
    "no number": ("train --workdir={tmp}/x --config.rl.steps=many", "many"),
    "unknown stage": ("train --workdir={tmp}/x --config.stages=('sft','rlhf')", "unknown stage 'rlhf'"),
    "stages out of order": ("train --workdir={tmp}/x --config.stages=('rl','sft')", "not in the order"),
    "no checkpoint": ("train --workdir={tmp}/x --config.init_checkpoint=/", "not a checkpoint"),
    "no comparisons": ("train --workdir={tmp}/x --config.data.train=/dev/null", "holds no comparisons"),
    "profile of no steps": ("train --workdir={tmp}/x --config.profile_steps=(3,1)", "config.profile_steps: (3, 1)"),
    "no such split": ("train --workdir={tmp}/x --config.evaluation.split=validation", "config.evaluation.split: 'validation'"),
    "surplus argument": ("train --workdir={tmp}/x surplus", "unexpected argument 'surplus'"),
    "no such config": ("train --workdir={tmp}/x --config=no_such_file.py", "--config=no_such_file.py: no such file"),
    "no devices": ("train --workdir={tmp}/x --config.mesh.cpu_devices=0", "config.mesh.cpu_devices: 0 is not in [1, "),
    "closed output": ("train --workdir={tmp}/x", "standard output is closed", {"shell": [">&-"]}),
    "closed error": ("train --workdir=/dev/null", None, {"shell": ["2>&-"]}),
    "no stream at all": ("judge --input=-", None, {"shell": ["<&-", ">&-", "2>&-"]}),
    "help to a full disk": ("judge --help", "standard output: No space left on device", TO_FULL_DISK),
    "summary to a full disk": (
        "judge --checkpoint={tmp}/model --input=/dev/null --output={tmp}/empty.jsonl",
        "standard output: No space left on device",
        TO_FULL_DISK,
    ),
    "unbuffered help to a full disk": ("judge --help", "standard output: No space left", TO_FULL_DISK | {"unbuffered": True}),
    "no such topology": ("plan --topology=x", "--topology=x: expected CHIP:AxB"),
    "plan as a directory": ("plan --topology=v5e:2x2 --json={tmp}/model", "--json={tmp}/model: is a directory"),
    "plan over its experiment": (
        "plan --topology=v5e:2x2 --config={tmp}/fine.py --json={tmp}/fine.py",
        "--json={tmp}/fine.py: would be written over {tmp}/fine.py, which this command uses",
    ),
    "no name of an input": ("judge --checkpoint={tmp}/model --input= --output={tmp}/o", "--input is needed"),
    "no name of an input to explain": ("judge --input= --explain=1", "--input is needed"),
    "name that a terminal obeys": ("train --workdir={tmp}/x --config=a\x1b[2J\x9bb.py", "--config=a\\x1b[2J\\x9bb.py: no such"),
    "plan below a file": ("plan --topology=v5e:2x2 --json={tmp}/file/plan.json", "--json={tmp}/file/plan.json: "),
}
COMMANDS = ("train", "judge", "convert", "plan")
WITH_CONFIG = ("train", "plan")
HELP = [f"{command} {flag}" for command in COMMANDS for flag in ("--help", "--helpfull")]
HELP += [f"{command} --config={{tmp}}/raises.py --config.rl.steps=3 --help" for command in WITH_CONFIG]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of every command of the table, by its name or command line."""
    tmp = tmp_path_factory.mktemp("commands")
    for name, text in CONFIGS.items():
        (tmp / f"{name}.py").write_text(text)
    (tmp / "file").write_text("")
    (tmp / "model").mkdir()
    (tmp / "model" / "model.json").write_text(json.dumps(dataclasses.asdict(sizes.toy()) | {"kind": "policy"}))
    (tmp / "in.jsonl").write_text(COMPARISON + "\n")
    cases = {name: {"line": line, **(more[0] if more else {})} for name, (line, _, *more) in CASES.items()}
    # A platform that is not there: whoever touches a device for help fails.
    cases |= {line: {"line": line, "env": {"JAX_PLATFORMS": "abacus"}} for line in HELP}
    for case in cases.values():
        command, *flags = case.pop("line").replace("{tmp}", str(tmp)).split()
        case["argv"] = [f"spct_jax.{command}", *flags]
    return tmp, dict(zip(cases, commands.run(list(cases.values())), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_one_line_and_exit_status_2(outcomes, name):
    tmp, found = outcomes
    says, done = CASES[name][1], found[name]
    assert done["status"] == 2, done
    assert "Traceback" not in done["out"] + done["err"]
    if says is None:
        assert done["err"] == "" == done["out"]
    else:
        assert done["err"].startswith("error: ") and done["err"].count("\n") == 1, done["err"]
        assert says.replace("{tmp}", str(tmp)) in done["err"], done["err"]


@pytest.mark.parametrize("line", HELP)
def test_help_needs_neither_devices_nor_a_right_config_and_tells_how_fields_are_set(outcomes, line):
    done = outcomes[1][line]
    assert done["status"] == 0 and done["err"] == "", done["err"]
    takes_config = line.split()[0] in WITH_CONFIG
    assert bool(re.search(r"^  --config: ", done["out"], re.MULTILINE)) == takes_config
    assert ("fields are set by --config.FIELD=VALUE" in " ".join(done["out"].split())) == takes_config
    assert "Config(seed=" not in done["out"]


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (InputError("x.jsonl:3: not JSON"), "x.jsonl:3: not JSON", 2),
        (OSError(28, "No space left on device", "/run/a"), "/run/a: No space left on device", 2),
        (OSError(122, "Disk quota exceeded", "/run/a"), "/run/a: Disk quota exceeded", 2),
        (PermissionError(13, "Permission denied", "/run/a"), "/run/a: Permission denied", 2),
        (OSError(5, "Input/output error", "/nfs/a"), "/nfs/a: Input/output error", 1),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer", 1),
        (RuntimeError("UNKNOWN: Gloo all-reduce failed: [p.cc:5] Connection closed"), "another process of the run does not", 1),
        (BrokenPipeError(32, "Broken pipe", "standard output"), "standard output: closed by its reader", 2),
        (MemoryError(), "out of memory (MemoryError)", 2),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nmore"), "out of memory (RESOURCE_EXHAUSTED: ", 2),
        (ValueError("Error writing\n/run/a: No space left on device [OS error 28]"), "Error writing /run/a: No space left", 2),
    ],
)
def test_what_the_system_refuses_is_described_in_one_line(error, line, status):
    found = errors.describe(error)
    assert found is not None and found[0].startswith(line) and found[1] == status and "\n" not in found[0]
    wrapped = ValueError("saving failed")
    wrapped.__cause__ = error
    assert errors.describe(wrapped) == found


@pytest.mark.parametrize("bug", [KeyError("x"), TypeError("x"), AssertionError()])
def test_a_bug_keeps_its_traceback(bug):
    assert errors.describe(bug) is None


def test_a_config_file_may_return_a_subclass_and_take_an_argument(tmp_path):
    path = tmp_path / "own"
    path.write_text("from spct_jax import config\ndef get_config(a):\n  c = config.tiny()\n  c.seed = int(a)\n  return c\n")
    assert cli.load_config(f"{path}:7").seed == 7


def test_of_a_field_that_is_given_twice_the_last_value_counts():
    given = ["--config.evaluation.k=(1,2)", "--config.rl.steps=3", "--config.evaluation.k=(4,8)", "--config.rl.steps=5"]
    config = cli.read_config([*given, "--config.stages=('sft',)", "--config.stages=('sft','rl')"])
    assert (config.evaluation.k, config.rl.steps, config.stages) == ((4, 8), 5, ("sft", "rl"))
    given = ["--config.evaluation.k=(1,2)", "-config.evaluation.k", "(4,8)", "--config.data.deduplicate", "-config.rl.steps=5"]
    config = cli.read_config(given)
    assert (config.evaluation.k, config.rl.steps) == ((4, 8), 5)


def test_an_interrupt_that_falls_into_the_garbage_collector_is_not_lost(monkeypatch):
    def collected(phase, info):
        gc.callbacks.remove(collected)
        raise KeyboardInterrupt

    def main(_):
        gc.callbacks.append(collected)
        gc.collect()
        time.sleep(2)

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            cli._run(main, ["command"])
    finally:
        signal.signal(signal.SIGINT, before)


def test_of_errors_that_nobody_can_catch_those_of_reads_given_up_are_not_printed(monkeypatch, capsys):
    """As by Orbax, which gives up the others when it cannot read an array of a damaged checkpoint."""

    async def read():
        try:
            await asyncio.sleep(60)
        except BaseException as error:
            raise Exception("Encountered error while reading an array") from error

    class Raising:
        def __init__(self, error):
            self.error = error

        def __del__(self):
            raise self.error

    def main(_):
        loop = asyncio.new_event_loop()
        loop.create_task(read())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        del loop
        gc.collect()
        for error in (RuntimeError("Event loop is closed"), ValueError("of interest")):
            Raising(error)

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    cli._run(main, ["command"])
    printed = capsys.readouterr().err
    assert "ValueError: of interest" in printed and "an array" not in printed and "closed" not in printed


def test_an_interrupt_while_a_command_is_imported_is_one_line(tmp_path):
    (tmp_path / "absl.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit('went on')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{pathlib.Path(__file__).parents[1]}"}
    for command, reset, outcome in (
        ("data", signal.default_int_handler, (130, "error: interrupted\n")),
        ("train", signal.default_int_handler, (130, "error: interrupted\n")),
        ("data", signal.SIG_IGN, (1, "went on\n")),  # as of a command in the background
    ):
        before = signal.signal(signal.SIGINT, reset)
        try:
            line = [sys.executable, "-m", f"spct_jax.{command}"]
            done = subprocess.run(line, capture_output=True, text=True, env=environment)
        finally:
            signal.signal(signal.SIGINT, before)
        assert (done.returncode, done.stderr) == outcome, command
    assert signal.getsignal(signal.SIGINT) is not interrupts.end  # where the package is only imported


def test_modules_of_several_commands_are_imported_together_and_each_keeps_its_flags():
    modules = {name: importlib.import_module(f"spct_jax.{name}") for name in COMMANDS}
    for name, module in modules.items():
        assert module.FLAGS is not flags.FLAGS and callable(module.main), name
    read = modules["judge"].FLAGS
    read(["judge", "--input=-", "--k=3"])
    assert modules["judge"].K.value == 3 and "k" not in modules["train"].FLAGS


def test_a_home_directory_stands_for_its_sign_as_behind_a_blank(monkeypatch):
    """No shell expands it within a word, and `--to=~/x` would make a directory of that name here."""
    monkeypatch.setenv("HOME", "/home/me")
    same = ["~/x", "--explain=a~/b", "--explain=~x", "-", "--k=8", "--input=./~", "--config.rl.steps=3"]
    typed = ["--to=~/x", "--to=~", "--config.data.train=0.5*pairs:~/a/*.jsonl + 0.5*~/b.jsonl", "-beside=a,~/b"]
    read = ["--to=/home/me/x", "--to=/home/me", "--config.data.train=0.5*pairs:/home/me/a/*.jsonl + 0.5*/home/me/b.jsonl"]
    assert cli.at_home([*same, *typed]) == [*same, *read, "-beside=a,/home/me/b"]


def test_a_command_whose_bucket_is_out_of_reach_does_not_wait_for_threads_that_try_again(monkeypatch, capsys):
    def leave(status):
        raise SystemError(status)

    monkeypatch.setattr(cli.os, "_exit", leave)
    with pytest.raises(SystemError, match="1"):
        cli._end("gs://b/x: cannot be reached", errors.FAILED, at_once=True)
    assert capsys.readouterr().err == "error: gs://b/x: cannot be reached\n"
