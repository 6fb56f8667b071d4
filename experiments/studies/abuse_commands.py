"""Every command called wrongly, or on a system that refuses something: one line and an exit status, never a traceback.

    python experiments/studies/abuse_commands.py --output=docs/results/abuse_commands.md [--only=disk]

Each of `CASES` is what a user types in a shell, what the command must end with and what its one line must say. There `train`,
`judge`, `convert` and `plan` stand for `python -m spct_jax.train` and so on, `launch` for `python launch/local.py`.
Files and models are made in a scratch directory, the current one of all commands. The exit status is 1 where one of them does
not do what it must.
"""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time

import jax
import tqdm
from absl import flags

from spct_jax import checkpoints, cli, models
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.models import sizes
from spct_jax.storage import files

ROOT = pathlib.Path(__file__).parents[2]
LONGEST = 300
"""Seconds that a command may take."""

RAISES = "def get_config():\n    options = {}\n    return options['rate']\n"
MICRO = (
    "--config.data.toy.train=48 --config.data.toy.test=24 --config.data.toy.development=16 --config.data.toy.demonstrations=64 "
    "--config.data.toy.general=16 --config.stages=\"('sft',)\" --config.sft.steps=2 --config.sft.batch_size=8"
)
JUDGE = "judge --checkpoint=model --input=in.jsonl --k=1 --max_new_tokens=8 --max_prompt=512"

FLAGS = flags.FlagValues()
OUTPUT = flags.DEFINE_string("output", "", "Page to write.", flag_values=FLAGS)
ONLY = flags.DEFINE_string("only", "", "Beginning of the names of the groups to run.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Case:
    """A command line, its exit status, and a pattern of the last line on standard error (empty: nothing may be there)."""

    group: str
    line: str
    status: int
    says: str


# A limit on the size of files stands for a full disk where nobody may mount one; the system then says "File too large".
FULL = "(No space left on device|File too large|bytes are needed)"
CASES = [
    Case("numbers", "train --workdir=x --config.rl.group_size=1", 2, r"config.rl.group_size: 1 is not in \[2, 4096\]"),
    Case("numbers", "train --workdir=x --config.rl.temperature=0", 2, r"config.rl.temperature: 0.0 is not in \[0.01, 100\]"),
    Case("numbers", "train --workdir=x --config.rl.clip=nan", 2, r"config.rl.clip: nan is not in \(0, 1\)"),
    Case("numbers", "train --workdir=x --config.rl.kl_beta=-0.1", 2, r"config.rl.kl_beta: -0.1 is not in \[0, "),
    Case("numbers", "train --workdir=x --config.sft.steps=0", 2, r"config.sft.steps: 0 is not in \[1, "),
    Case(
        "numbers", "train --workdir=x --config.sft.optimizer.learning_rate=inf", 2, r"learning_rate: inf is not in \(0, 100\]"
    ),
    Case("numbers", "train --workdir=x '--config.evaluation.k=()'", 2, r"config.evaluation.k: \(\) has 0 values, not 1 to 64"),
    Case("numbers", "train --workdir=x '--config.evaluation.k=(0,)'", 2, r"config.evaluation.k\[0\]: 0 is not in \[1, "),
    Case("numbers", "train --workdir=x '--config.evaluation.k=(8,1)'", 2, r"config.evaluation.k: \(8, 1\) is not ascending"),
    Case("numbers", "train --workdir=x --config.evaluation.k_meta_fraction=2", 2, r"k_meta_fraction: 2.0 is not in \(0, 1\]"),
    Case("numbers", "train --workdir=x --config.rejection.problems=-1", 2, r"config.rejection.problems: -1 is not in \[0, "),
    Case("numbers", "train --workdir=x --config.model.width=0", 2, r"config.model.width: 0 is not in \[1, 131072\]"),
    Case("numbers", "plan --topology=v5e:2x2 --config.mesh.slices=0", 2, r"config.mesh.slices: 0 is not in \[1, "),
    Case("seeds", "train --workdir=x --config.seed=4294967297", 2, r"config.seed: 4294967297 is not in \[0, 4294967295\]"),
    Case("seeds", "train --workdir=x --config.data.toy.seed=-1", 2, r"config.data.toy.seed: -1 is not in \[0, 4294967295\]"),
    Case("seeds", f"{JUDGE} --output=o --seed=9223372036854775808", 2, r"--seed: 9223372036854775808 is not in \[0, "),
    Case("seeds", f"{JUDGE} --output=o --seed=-1", 2, r"--seed: -1 is not in \[0, 4294967295\]"),
    Case("judge's numbers", f"{JUDGE} --output=o --k=0", 2, r"--k: 0 is not in \[1, 65536\]"),
    Case("judge's numbers", f"{JUDGE} --output=o --temperature=nan", 2, r"--temperature: nan is not in \[0, 100\]"),
    Case("judge's numbers", f"{JUDGE} --output=o --top_p=0", 2, r"--top_p: 0.0 is not in \(0, 1\]"),
    Case("judge's numbers", f"{JUDGE} --output=o --cpu_devices=0", 2, r"--cpu_devices: 0 is not in \[1, 4096\]"),
    Case("help", "train --help", 0, ""),
    Case("help", "train --config=none.py --help", 0, ""),
    Case("help", "JAX_PLATFORMS=cuda plan --helpfull", 0, ""),
    Case("configuration files", "train --workdir=x --config=none.py", 2, r"--config=none.py: no such file"),
    Case("configuration files", "train --workdir=x --config=raises.py", 2, r"raises.py:3: KeyError: 'rate'"),
    Case(
        "configuration files",
        f"train --workdir=x --config={ROOT}/experiments/tiny.py:typo",
        2,
        r"unknown ablation 'typo'; known",
    ),
    Case("configuration files", "train --workdir=x --config.rl.stepz=1", 2, r"did you mean --config.rl.steps\?"),
    Case("paths", "train --workdir=file", 2, r"/file: cannot be made \(File exists\)"),
    Case("paths", "train --workdir=file/run", 2, r"/file/run: cannot be made \(Not a directory\)"),
    Case("paths", "train --workdir=/dev/null", 2, r"/dev/null: cannot be made \(File exists\)"),
    Case("paths", "train --workdir=s3://bucket/run", 2, r"--workdir=s3://bucket/run: a URL"),
    Case("paths", f"{JUDGE} --output=file/o", 2, r"file/o: cannot be written \(Not a directory\)"),
    Case("paths", f"{JUDGE} --output=.", 2, r"cannot be written \(Is a directory\)"),
    Case("paths", "convert --from=model --to=file/x --format=hf", 2, r"file"),
    Case("paths", "plan --topology=v5e:2x2 --json=file/plan.json", 2, r"--json=file/plan.json: not in a directory"),
    Case("paths", "plan --topology=x", 2, r"--topology=x: expected CHIP:AxB"),
    Case("streams", f"{JUDGE.replace('in.jsonl', '-')} --output=o <&-", 2, r"--input=-: standard input is closed"),
    Case("streams", f"{JUDGE} --output=o1 >&-", 2, r"standard output is closed"),
    Case("streams", "train --workdir=x >&-", 2, r"standard output is closed"),
    Case("streams", "convert --from=model --to=c1 --format=hf >&-", 2, r"standard output is closed"),
    Case("streams", "plan --topology=v5e:2x2 >&-", 2, r"standard output is closed"),
    Case("streams", f"{JUDGE} --output=o2 2>&-", 0, ""),
    Case("streams", "train --workdir=/dev/null 2>&-", 2, ""),
    Case("streams", "convert --from=model --to=c2 --format=hf 2>&-", 0, ""),
    Case("streams", f"{JUDGE} --output=- >/dev/full", 2, r"standard output: No space left on device"),
    Case("streams", f"{JUDGE} --output=o3 >/dev/full", 2, r"standard output: No space left on device"),
    Case("streams", "convert --from=model --to=c3 --format=hf >/dev/full", 2, r"standard output: No space left on device"),
    Case("streams", "train --help >/dev/full", 2, r"standard output: No space left on device"),
    Case("streams", f"{JUDGE} --output=- | true; exit ${{PIPESTATUS[0]}}", 2, r"standard output: closed by its reader"),
    Case("devices", "JAX_PLATFORMS=cuda train --workdir=x", 2, r"JAX finds no devices \(JAX_PLATFORMS=cuda\)"),
    Case(
        "devices", f"JAX_PLATFORMS=abacus {JUDGE} --output=o4", 2, r"JAX finds no devices \(JAX_PLATFORMS=abacus\): Unable to"
    ),
    Case("devices", "JAX_PLATFORMS=abacus convert --from=model --to=c4 --format=hf", 2, r"JAX finds no devices"),
    Case("terminals", "LC_ALL=C PYTHONIOENCODING=ascii convert --from=model --to=caf\u00e9 --format=hf", 0, ""),
    Case(
        "terminals",
        "LC_ALL=C PYTHONIOENCODING=ascii train --workdir=x --config.data.train=caf\u00e9.jsonl",
        2,
        r"caf\\xe9.jsonl",
    ),
    Case("full disk", f"{JUDGE} --output=/dev/full", 2, r"/dev/full: No space left on device"),
    Case("full disk", f"DISK=8k {JUDGE} --output=small/o", 2, rf"small/o[\w.]*: {FULL}"),
    Case("full disk", "DISK=64k convert --from=model --to=small/c --format=hf", 2, FULL),
    Case("full disk", "DISK=64k convert --from=model --to=small/d --format=orbax", 2, FULL),
    Case("full disk", f"DISK=64k train --workdir=small/run {MICRO}", 2, FULL),
    Case("launcher", "launch --processes=2 -- train --workdir=/dev/null", 2, r"/dev/null: cannot be made \(File exists\)"),
    Case(
        "launcher", "launch -- python -c 'import sys; sys.exit(1)'", 1, r"status 1 twice within 30 s of its start; not started"
    ),
    Case("launcher", "launch -- ./none", 2, r"none: No such file or directory"),
    Case("launcher", "launch --processes=0 -- python", 2, r"--processes of at least 1"),
]


def shell(line: str) -> str:
    """The command line that bash runs: names of commands spelt out, and a disk of so much at `small` where it says DISK=."""
    python = sys.executable
    disk, line = re.fullmatch(r"(?:DISK=(\d+)k )?(.*)", line).groups()
    for name in ("train", "judge", "convert", "plan"):
        line = re.sub(rf"(^|(?<= )){name}(?= --)", f"{python} -m spct_jax.{name}", line)
    line = re.sub(r"^launch", f"{python} {ROOT / 'launch' / 'local.py'}", line)
    if disk and can_mount():
        return f"exec unshare -rm bash -c {shlex.quote(f'mount -t tmpfs -o size={disk}k tmpfs small && {line}')}"
    return f"ulimit -f {disk}; {line}" if disk else line


def can_mount() -> bool:
    """Whether a small file system can be mounted in a namespace of its own."""
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0


def prepare(directory: pathlib.Path) -> None:
    """A small model with its tokenizer, a few comparisons, a file where a directory is meant."""
    text = "The quiet hotel has a pool and a garden, ten rooms and wifi in each. "
    tokenizer = train_tokenizer([text, "Response 1: \\boxed{8, 3}"] * 50, vocab_size=500)
    config = sizes.toy(tokenizer.vocab_size)
    params = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    prompt = PromptConfig("short", "short_single", "short_meta", "short_judge")
    checkpoints.save(directory / "model", checkpoints.Model(params, config, tokenizer, prompt=prompt))
    lines = [json.dumps({"id": str(i), "query": text * 3, "responses": ["Ten rooms. " * 9, "A pool."]}) for i in range(40)]
    (directory / "in.jsonl").write_text("\n".join(lines) + "\n")
    (directory / "file").write_text("")
    (directory / "raises.py").write_text(RAISES)
    (directory / "small").mkdir()


def attempt(case: Case, directory: pathlib.Path) -> tuple[str, str, float]:
    """Runs one; (what is wrong with how it ended, empty for nothing; its last line; seconds)."""
    begun = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            ["bash", "-c", shell(case.line)], cwd=directory, env=environment, capture_output=True, text=True, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return f"still running after {LONGEST} s", "", LONGEST
    seconds = time.monotonic() - begun
    said = [line for line in re.split(r"[\r\n]+", done.stderr) if line.strip()]
    last = said[-1] if said else ""
    if done.returncode != case.status:
        return f"exit status {done.returncode}", last, seconds
    if "Traceback" in done.stderr + done.stdout or "Exception ignored" in done.stderr:
        return "a traceback", last, seconds
    if case.says and not re.search(case.says, last):
        return "another line", last, seconds
    return "", last, seconds


def main(_) -> None:
    """Entry of `python experiments/studies/abuse_commands.py`."""
    cases = [case for case in CASES if case.group.startswith(ONLY.value)]
    if not cases:
        raise InputError(f"--only={ONLY.value}: groups are {', '.join(dict.fromkeys(case.group for case in CASES))}")
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch)
        prepare(directory)
        for case in tqdm.tqdm(cases, unit="command"):
            wrong, last, seconds = attempt(case, directory)
            failed += bool(wrong)
            last = last.replace(str(directory), "$PWD").replace(str(ROOT), "$ROOT")
            line = case.line.replace(str(ROOT), "$ROOT").replace(MICRO, "..")
            cells = (
                case.group,
                f"`{line}`",
                str(case.status),
                f"`{last}`" if last and case.status else "",
                wrong or "as it must",
            )
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
            if wrong:
                print(f"{case.line}\n  {wrong}: {last}", file=sys.stderr)
    text = "\n".join([
        f"# {len(cases)} commands called wrongly, {failed} that do not end as they must",
        "",
        "Command: `python experiments/studies/abuse_commands.py --output=docs/results/abuse_commands.md`",
        "",
        "`DISK=64k` stands for a file system of 64 KB at `small`, `..` for the smallest run that there is.",
        "",
        "| group | command | exit status | last line on standard error | |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
    ])  # fmt: skip
    if OUTPUT.value:
        files.write(OUTPUT.value, text)
    print(f"{len(cases)} commands, {failed} do not end as they must")
    sys.exit(failed > 0)


if __name__ == "__main__":
    cli.run(main, FLAGS)
