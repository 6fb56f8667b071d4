r"""The judge command on one, two and three processes, killed on each: the outputs must be the same to the last byte.

A file of toy comparisons of two responses, every hundredth line cut short, is judged undisturbed by one process, by a judge
of random weights that writes scores all the same (`tests/random_judge.py`); then by one, two and three,
one of which is killed by SIGKILL when half of the lines are answered; and by three, then one, then two, with kills at a
third and at two thirds. The launcher starts all again, or the command is given anew on another number of processes.

    python experiments/studies/judge_hosts.py --workdir=/tmp/hosts --lines=10000 --output=docs/results/judge_hosts.md

Writes what happened, and exits with 1 if an output differs. All processes share the machine's cores, so times say nothing of
several hosts.
"""

import hashlib
import itertools
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import kills
from absl import flags

from spct_jax import cli
from spct_jax.config import tiny
from spct_jax.errors import InputError
from spct_jax.toy import world

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "Directory to make.", required=True, flag_values=FLAGS)
LINES = flags.DEFINE_integer("lines", 10_000, "Lines of the input.", lower_bound=100, flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", "judge_hosts.md", "Where the result is written.", flag_values=FLAGS)

OPTIONS = ["--k=1", "--batch_size=64", "--max_new_tokens=24", "--max_prompt=128", "--temperature=1", "--on_bad=skip"]
LIVES = {
    "undisturbed": [(1, None)],
    "one": [(1, 1 / 2), (1, None)],
    "two": [(2, 1 / 2)],
    "three": [(3, 1 / 2)],
    "three, one, two": [(3, 1 / 3), (1, 2 / 3), (2, None)],
}
"""Processes of each life, and the part of the lines after which one of them is killed. Where no life follows a killed one, the
launcher starts all processes again."""


def write_input(path: pathlib.Path, lines: int) -> None:
    """Toy comparisons of two responses; every hundredth line is no JSON."""
    config = tiny().data.toy
    problems = (world.problem("test", i, config).comparison for i in itertools.count())
    with open(path, "w") as file:
        for i, shown in enumerate(itertools.islice((shown for shown in problems if shown.n == 2), lines)):
            record = {"id": shown.id, "query": shown.query, "responses": list(shown.responses), "scores": list(shown.scores)}
            file.write(json.dumps(record)[: 20 if i % 100 == 99 else None] + "\n")


def answered(output: pathlib.Path) -> int:
    """Lines of an output and of its shares."""
    files = [output, *pathlib.Path(f"{output}.shares").glob("*.jsonl")]
    return sum(path.read_bytes().count(b"\n") for path in files if path.exists())


def start(directory: pathlib.Path, output: pathlib.Path, processes: int, restarts: int, log) -> subprocess.Popen:
    """The judge, under the launcher where there are several processes or another life of as many follows."""
    command = [sys.executable, "-m", "spct_jax.judge", f"--checkpoint={directory / 'model'}"]
    command += [f"--template={directory / 'template.txt'}", f"--input={directory / 'in.jsonl'}", f"--output={output}", *OPTIONS]
    if processes > 1:
        launcher = [sys.executable, str(kills.LAUNCHER), f"--processes={processes}", f"--restarts={restarts}", "--grace=1"]
        command = [*launcher, "--", *command]
    return subprocess.Popen(command, stdout=log, stderr=log)


def live(directory: pathlib.Path, output: pathlib.Path, processes: int, kill_at: int | None, last: bool, log) -> str:
    """One life; returns how it ended."""
    begun = time.monotonic()
    run = start(directory, output, processes, int(last), log)
    told = f"{processes} process{'es' * (processes > 1)}"
    if kill_at is not None:
        while answered(output) < kill_at:
            if run.poll() is not None:
                raise InputError(f"the run ended with status {run.returncode} before it was killed; see {log.name}")
            time.sleep(0.05)
        victim = kills.children(run.pid)[-1] if processes > 1 else run.pid
        subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(victim)], check=True)
        kept = answered(output)
        told += f", one killed with {kept:,} lines answered" + ", all started again" * last
    status = run.wait()
    if kill_at is None or last:
        if status:
            raise InputError(f"the run ended with status {status}; see {log.name}")
        told += ", to the end"
    return f"{told} ({time.monotonic() - begun:.0f} s)"


def judge(directory: pathlib.Path, name: str) -> tuple[str, list[str]]:
    """Judges the input in the lives of that name: (SHA-256 of the output, how each life ended)."""
    output, told = directory / f"{name.replace(', ', '_')}.jsonl", []
    with open(output.with_suffix(".log"), "ab") as log:
        for number, (processes, part) in enumerate(LIVES[name], 1):
            last = number == len(LIVES[name])
            told.append(live(directory, output, processes, part and int(part * LINES.value), last, log))
            print(f"{name}: {told[-1]}", flush=True)
    if pathlib.Path(f"{output}.shares").exists():
        raise InputError(f"{output}.shares is still there")
    return hashlib.sha256(output.read_bytes()).hexdigest(), told


def main(_) -> None:
    """Runs the study and writes what happened."""
    directory = pathlib.Path(WORKDIR.value)
    if directory.exists():
        raise InputError(f"{directory} exists; choose another --workdir")
    directory.mkdir(parents=True)
    sys.path.append(str(kills.ROOT / "tests"))
    import random_judge

    random_judge.save(directory)
    write_input(directory / "in.jsonl", LINES.value)
    found = {name: judge(directory, name) for name in LIVES}
    different = [name for name, (digest, _) in found.items() if digest != found["undisturbed"][0]]
    lines = (directory / "undisturbed.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    errors, valid = sum("error" in record for record in records), sum(record.get("valid", 0) for record in records)
    shown = " ".join(a for a in sys.argv[1:] if not a.startswith("--workdir"))
    report = [
        "# One file, judged by one, two and three processes",
        "",
        f"Command: `python experiments/studies/judge_hosts.py {shown}`; the judge's options: `{' '.join(OPTIONS)}`.",
        "",
        f"{len(lines):,} lines, {errors:,} of them errors and {valid:,} with scores that could be read. "
        + (f"Outputs that differ: {', '.join(different)}." if different else "All outputs are the same to the last byte."),
        "",
        "| lives | SHA-256 of the output |",
        "| --- | --- |",
        *(f"| {'; then '.join(told)} | `{digest[:16]}` |" for digest, told in found.values()),
        "",
    ]
    pathlib.Path(OUTPUT.value).write_text("\n".join(report))
    print("\n".join(report))
    shutil.rmtree(directory)
    if different or len(lines) != LINES.value:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main, FLAGS)
