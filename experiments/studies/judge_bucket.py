r"""The judge and a benchmark in a bucket, killed once: their files must be those of undisturbed runs on a disk.

Checkpoint, template, input and output are in a bucket, that of an emulator of Google Cloud Storage on this machine
(`tests/buckets.py`). A kill comes when the first part of what has been judged is there; parts are written every two seconds
here, not every thirty, so that a short run has some. The judge has random weights and writes scores all the same
(`tests/random_judge.py`).

    python experiments/studies/judge_bucket.py --workdir=/tmp/judge_bucket --output=docs/results/judge_bucket.md

`judge` runs as one process, here and in the bucket. `evaluate` runs here as one process and as two, and in the bucket as two,
of which one is killed and the launcher starts both again. Writes what happened, and exits with 1 if a file differs.
"""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import kills
from absl import flags

from spct_jax import cli
from spct_jax.errors import InputError
from spct_jax.storage import files, gcs, paths
from spct_jax.storage.paths import Path

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "Directory to make.", required=True, flag_values=FLAGS)
LINES = flags.DEFINE_integer("lines", 1500, "Comparisons to judge.", lower_bound=100, flag_values=FLAGS)
ITEMS = flags.DEFINE_integer("items", 1500, "Items of the benchmark.", lower_bound=100, flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", "judge_bucket.md", "Where the result is written.", flag_values=FLAGS)

NAME = "gs://spct-judge-test"
"""The bucket."""
VOTES = 8
PART_SECONDS = 2.0
START = (
    f"import runpy, sys; from spct_jax.storage import append_only; append_only.PART_SECONDS = {PART_SECONDS}; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
"""Runs a module of the package with smaller parts."""
OPTIONS = ["--max_new_tokens=24", "--max_prompt=64", "--temperature=1", "--batch_size=64"]
PROGRAMS = {"judge": ["--input={place}/in.jsonl", f"--k={VOTES}", "--output={place}/{out}.jsonl"]}
PROGRAMS["evaluate"] = ["--benchmark=llmbar", "--data={place}/data", f"--k=1,{VOTES}", "--nogreedy", "--output={place}/{out}"]


def write_inputs(directory: pathlib.Path) -> None:
    """A judge, what it is to judge, and an LLMBar of made-up items."""
    import random_judge

    random_judge.save(directory)
    with open(directory / "in.jsonl", "w") as file:
        for i in range(LINES.value):
            file.write(json.dumps({"id": str(i), "query": f"q {i}", "responses": [f"a {i}", f"b {i % 7}"]}) + "\n")
    rows = [{"input": f"q {i}", "output_1": f"a {i}", "output_2": f"b {i % 7}", "label": 1 + i % 2} for i in range(ITEMS.value)]
    (directory / "data" / "Natural").mkdir(parents=True)
    (directory / "data" / "Natural" / "dataset.json").write_text(json.dumps(rows))


def run(program: str, place: str, out: str, processes: int, log: pathlib.Path, kill_when: Callable[[], bool] | None) -> str:
    """Runs a program to its end, killing one of its processes when something holds; says how it went."""
    given = [flag.format(place=place, out=out) for flag in PROGRAMS[program]]
    command = [sys.executable, "-c", START, f"spct_jax.{program}", f"--checkpoint={place}/model"]
    command += [f"--template={place}/template.txt", *given, *OPTIONS]
    if processes > 1:
        command = [sys.executable, str(kills.LAUNCHER), f"--processes={processes}", "--restarts=1", "--grace=1", "--", *command]
    told = f"{processes} process{'es' * (processes > 1)}"
    begun = time.monotonic()
    with open(log, "ab") as file:
        started = subprocess.Popen(command, stdout=file, stderr=file)
        if kill_when is not None:
            while not kill_when():
                if started.poll() is not None:
                    raise InputError(f"{program} ended with status {started.returncode} before it was killed; see {log}")
                time.sleep(0.2)
            victim = kills.children(started.pid)[-1] if processes > 1 else started.pid
            subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(victim)], check=True)
            told += f", one killed after {time.monotonic() - begun:.0f} s"
            if processes == 1:
                started.wait()
                started = subprocess.Popen(command, stdout=file, stderr=file)
        if started.wait():
            raise InputError(f"{program} ended with status {started.returncode}; see {log}")
    return f"{told} ({time.monotonic() - begun:.0f} s)"


def has_parts(place: str, owner: str) -> Callable[[], bool]:
    """Whether a part of a file of that name is in the bucket."""
    return lambda: any(f"/{owner}.parts/" in name for name in gcs.register().find(place))


def contents(place: str, out: Path) -> dict[str, bytes]:
    """The files of an output by name, the place and the output's own name taken out of their texts."""
    found = files.matching(out.parent, f"{out.name}*") if out.suffix else files.matching(out, "*")
    return {
        path.name.removeprefix(out.stem): path.read_bytes().replace(str(out).encode(), b"").replace(place.encode(), b"")
        for path in found
    }


def digest(found: dict[str, bytes]) -> str:
    """SHA-256 of all files and their names."""
    total = hashlib.sha256()
    for name in sorted(found):
        total.update(name.encode() + b"\0" + found[name])
    return total.hexdigest()


def lives(here: str) -> list[tuple[str, str, str, int, Callable[[], bool] | None]]:
    """(program, place, output, processes, when one is killed) of every run."""
    return [
        ("judge", here, "alone", 1, None),
        ("judge", NAME, "killed", 1, has_parts(NAME, "killed.jsonl")),
        ("evaluate", here, "one", 1, None),
        ("evaluate", here, "two", 2, None),
        ("evaluate", NAME, "two", 2, has_parts(NAME, "00001.jsonl")),
    ]


def study(directory: pathlib.Path) -> list[str]:
    """Makes all runs; lines of the page, and what differs."""
    write_inputs(directory)
    files.put_directory(directory, paths.of(NAME))
    rows, first, different = [], {}, []
    for program, place, out, processes, kill_when in lives(str(directory)):
        told = run(program, place, out, processes, directory.with_suffix(".log"), kill_when)
        found = contents(place, paths.of(place) / (f"{out}.jsonl" if program == "judge" else out))
        wanted = first.setdefault(program, found)
        different += [
            f"{program}, {told}: {name or 'output'}"
            for name in wanted.keys() | found.keys()
            if wanted.get(name) != found.get(name)
        ]
        rows.append(f"| `{program}` | {'in a bucket' if place == NAME else 'here'} | {told} | `{digest(found)[:16]}` |")
        print(rows[-1], flush=True)
    shown = " ".join(a for a in sys.argv[1:] if not a.startswith("--workdir"))
    report = [
        "# The judge and a benchmark in a bucket, killed once",
        "",
        f"Command: `python experiments/studies/judge_bucket.py {shown}`; the options of both programs: `{' '.join(OPTIONS)}`.",
        "",
        f"`judge`: {LINES.value:,} lines, {VOTES} votes each. `evaluate`: {ITEMS.value:,} items, {VOTES} votes each. "
        + (f"Files that differ: {'; '.join(sorted(different))}." if different else "All files are the same to the last byte")
        + "; where they name a path, the place of the run was taken out of them first." * (not different),
        "",
        f"In the bucket, parts of growing files are written every {PART_SECONDS:g} s here and not every 30, so that a kill "
        "finds some.",
        "",
        "| program | where | run | SHA-256 of its files |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
    ]
    pathlib.Path(OUTPUT.value).write_text("\n".join(report))
    return different


def main(_) -> None:
    """Runs the study."""
    directory = pathlib.Path(WORKDIR.value).absolute()
    if directory.exists():
        raise InputError(f"{directory} exists; choose another --workdir")
    directory.mkdir(parents=True)
    sys.path.append(str(kills.ROOT / "tests"))
    import buckets

    os.environ["XDG_CACHE_HOME"] = str(directory / "cache")  # of copies of objects
    with buckets.served(NAME) as url, buckets.pointed_to(url):
        different = study(directory)
    shutil.rmtree(directory)
    if different:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main, FLAGS)
