"""Kills a training run with SIGKILL at random moments, restarts it each time, and compares it with an undisturbed run.

    python experiments/kill_test.py --workdir=runs/kill --kills=10 --output=docs/results/kill_test.md
    python experiments/kill_test.py --workdir=runs/kill --kills=20 --processes=2 --life=30 --output=docs/results/kill_pod.md

Both runs must end with bitwise the same parameters in every stage and, times and throughput aside, the same report. The
lives between kills are drawn uniformly, so that together they last about as long as the undisturbed run, or `--life` seconds
each on average. With several processes one of them or all are killed, and `launch/local.py` starts them again. Fields of the
experiment are set as for training: `--config.sft.steps=40`. On two CPU cores the default takes two to three times the tiny
experiment.
"""

import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
from absl import flags

from spct_jax import cli
from spct_jax.errors import InputError
from spct_jax.models import checkpoints

TIMES = {"seconds", "compile_seconds", "tokens_per_second"}


LAUNCHER = pathlib.Path(__file__).parents[1] / "launch" / "local.py"


def command(workdir: pathlib.Path, overrides: list[str], processes: int = 1) -> list[str]:
    """The training command under test."""
    train = [sys.executable, "-m", "spct_jax.train", f"--workdir={workdir}", *overrides]
    return train if processes == 1 else [sys.executable, str(LAUNCHER), f"--processes={processes}", "--", *train]


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def run_to_end(workdir: pathlib.Path, overrides: list[str], processes: int = 1) -> float:
    """Runs training undisturbed; returns its seconds."""
    start = time.monotonic()
    with open(workdir.with_suffix(".log"), "ab") as log:
        subprocess.run(command(workdir, overrides, processes), check=True, stdout=log, stderr=log)
    return time.monotonic() - start


def run_killed(workdir: pathlib.Path, overrides: list[str], kills: int, life: float, seed: int) -> list[str]:
    """Runs training, killing it `kills` times; returns a line per kill saying how long it had lived and where it was."""
    rng = random.Random(seed)
    lines = []
    with open(workdir.with_suffix(".log"), "ab") as log:
        while len(lines) < kills:
            moment = rng.uniform(0, 2 * life)
            process = subprocess.Popen(command(workdir, overrides), stdout=log, stderr=log)
            try:
                process.wait(moment)
                raise InputError(f"the run ended before kill {len(lines) + 1}; use fewer kills or a longer run")
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            lines.append(f"killed after {moment:.1f} s, {progress(workdir)}")
            print(lines[-1], flush=True)
        subprocess.run(command(workdir, overrides), check=True, stdout=log, stderr=log)
    return lines


def run_pod_killed(
    workdir: pathlib.Path, overrides: list[str], kills: int, life: float, seed: int, processes: int
) -> list[str]:
    """As `run_killed`, but the processes are killed below the launcher, which must bring the run to its end by itself."""
    rng = random.Random(seed)
    lines = []
    with open(workdir.with_suffix(".log"), "ab") as log:
        launcher = subprocess.Popen(command(workdir, overrides, processes), stdout=log, stderr=log)
        while len(lines) < kills:
            before = set(children(launcher.pid))
            moment = rng.uniform(0, 2 * life)
            try:
                launcher.wait(moment)
                raise InputError(f"the run ended before kill {len(lines) + 1}; use fewer kills or a longer run")
            except subprocess.TimeoutExpired:
                pass
            running = children(launcher.pid)
            victims = running if rng.random() < 0.5 else [rng.choice(running)]
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            lines.append(f"killed {len(victims)} of {len(running)} after {moment:.1f} s, {progress(workdir)}")
            print(lines[-1], flush=True)
            while launcher.poll() is None and (set(children(launcher.pid)) & (before | set(running))):
                time.sleep(0.1)
        if launcher.wait():
            raise InputError(f"the run ended with status {launcher.returncode}; see {workdir.with_suffix('.log')}")
    return lines


def progress(workdir: pathlib.Path) -> str:
    """Where a run stands, in words."""
    started = [s for s in ("sft", "rejection", "rft", "rl", "meta_rm", "evaluate") if (workdir / s).is_dir()]
    if not started:
        return "before the first stage"
    names = [p.name for p in (workdir / started[-1] / "checkpoints").glob("*")]
    steps = [name for name in names if name.isdigit()]  # a save cut short has a longer name
    saved = f", last checkpoint {max(map(int, steps))}" if steps else ""
    return f"in {started[-1]}{saved}"


def digests(workdir: pathlib.Path) -> dict[str, str]:
    """A hash of the final parameters of every trained stage."""
    found = {}
    for card in sorted(workdir.glob("*/model.json")):
        kind = json.loads(card.read_text())["kind"]
        params = checkpoints.load(card.parent, kind=kind).params
        found[card.parent.name] = hash_tree(params)
    return found


def hash_tree(tree) -> str:
    """SHA-256 of every leaf's path and bytes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def figures(workdir: pathlib.Path) -> dict:
    """The report without times and throughput."""

    def timeless(value):
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k not in TIMES}
        return value

    return timeless(json.loads((workdir / "report.json").read_text()))


def compare(calm: pathlib.Path, killed: pathlib.Path) -> list[str]:
    """What differs between two finished runs; empty if nothing does."""
    one, other = digests(calm), digests(killed)
    wrong = [f"parameters of {stage} differ" for stage in one if one[stage] != other.get(stage)]
    one, other = figures(calm), figures(killed)
    return wrong + [f"report field {field} differs" for field in one if one[field] != other.get(field)]


def main(_) -> None:
    """Runs the test and writes what happened."""
    root, kills = pathlib.Path(WORKDIR.value), KILLS.value
    root.mkdir(parents=True, exist_ok=True)
    calm, killed = root / "calm", root / "killed"
    for directory in (calm, killed):
        if directory.exists():
            raise InputError(f"{directory} exists; choose another --workdir")
    overrides = [a for a in OVERRIDES if a.startswith(("--config.", "--config="))]
    duration = run_to_end(calm, overrides, PROCESSES.value)
    print(f"undisturbed: {duration:.0f} s", flush=True)
    life = LIFE.value or duration / kills
    if PROCESSES.value == 1:
        lines = run_killed(killed, overrides, kills, life, SEED.value)
    else:
        lines = run_pod_killed(killed, overrides, kills, life, SEED.value, PROCESSES.value)
    wrong = compare(calm, killed)
    verdict = "bitwise the same parameters in every stage, and the same report figures" if not wrong else "; ".join(wrong)
    report = [
        f"# Killed {kills} times, restarted {kills} times",
        "",
        f"Command: `python experiments/kill_test.py {' '.join(a for a in OVERRIDES if not a.startswith('--workdir'))}`",
        "",
        f"Undisturbed run: {duration:.0f} s. Result: {verdict}.",
        "",
        *(f"{i}. {line}" for i, line in enumerate(lines, start=1)),
        "",
        *(f"- parameters of {stage}: sha256 `{digest}`" for stage, digest in digests(killed).items()),
        "",
    ]
    pathlib.Path(OUTPUT.value).write_text("\n".join(report))
    print("\n".join(report))
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    WORKDIR = flags.DEFINE_string("workdir", None, "Where both runs go.", required=True)
    KILLS = flags.DEFINE_integer("kills", 10, "How often the second run is killed.", lower_bound=1)
    SEED = flags.DEFINE_integer("seed", 0, "Seed of the moments.")
    PROCESSES = flags.DEFINE_integer("processes", 1, "Processes of the run.", lower_bound=1)
    LIFE = flags.DEFINE_float("life", 0.0, "Seconds between kills on average; 0: as the undisturbed run's time allows.")
    OUTPUT = flags.DEFINE_string("output", "kill_test.md", "Where the result is written.")
    OVERRIDES = sys.argv[1:]
    cli.run(main, with_config=True)
