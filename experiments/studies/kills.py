"""Lives of a training run that SIGKILL ends, at any moment or where it hurts most, and what the next life made of it."""

import dataclasses
import json
import os
import pathlib
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from spct_jax.checkpoints import steps
from spct_jax.errors import InputError
from spct_jax.storage import gcs, paths
from spct_jax.storage.paths import Path

ROOT = pathlib.Path(__file__).absolute().parents[2]
LAUNCHER, README = ROOT / "launch" / "local.py", ROOT / "README.md"
STAGES = ("sft", "rejection", "rft", "rl", "meta_rm", "evaluate")
TRAINED = ("sft", "rft", "rl", "meta_rm")
POLL, POLL_IN_BUCKET = 0.002, 0.05
"""Seconds between two looks at a run; a look into a bucket takes the server and this process a while."""
DELAY = 0.2
"""A kill that is aimed comes up to so many seconds after what it is aimed at has begun, if that is still going on then."""

_BAR = re.compile(rf"(?:^|[\r\n])({'|'.join(TRAINED)}): +\d+%\|.*?\| (\d+)/\d+ \[")
_AT_WORK = {stage: re.compile(rf"(?:^|[\r\n]){stage}: +\d+%") for stage in TRAINED}
_AT_WORK |= {"rejection": re.compile(r"rejection draws: +\d+%"), "evaluate": re.compile(r"_(?:greedy|sampled)\w*: +\d+%")}


@dataclasses.dataclass(frozen=True)
class Mesh:
    """What may be another from life to life: the number of processes, and flags of `config.mesh`."""

    processes: int = 1
    flags: tuple[str, ...] = ()


def readme_command() -> list[str]:
    """The README's command of the tiny experiment, `python -m spct_jax.train --workdir=runs/tiny`, by this Python."""
    block = README.read_text().partition("<!-- experiment -->")[2].partition("```bash")[2].partition("```")[0]
    python, *arguments = shlex.split(block.rpartition("&&")[2])
    if not python.endswith("python") or arguments[:2] != ["-m", "spct_jax.train"]:
        raise InputError(f"{README}: its experiment is no longer trained by `python -m spct_jax.train`")
    return [sys.executable, *arguments]


def workdir_in(directory: pathlib.Path, overrides: Sequence[str] = ()) -> Path:
    """Where the README's command, given in a directory with these flags, leaves its run."""
    named = [a.partition("=")[2] for a in (*readme_command(), *overrides) if a.startswith("--workdir=")]
    return paths.of(named[-1]) if paths.is_remote(named[-1]) else directory / named[-1]


def command(overrides: Sequence[str], mesh: Mesh, restarts: int = 0) -> list[str]:
    """The README's command; several processes under the launcher, which starts all again up to `restarts` times."""
    train = [*readme_command(), *overrides, *mesh.flags]
    if mesh.processes == 1:
        return train
    return [sys.executable, str(LAUNCHER), f"--processes={mesh.processes}", f"--restarts={restarts}", "--", *train]


def children(pid: int) -> list[int]:
    """Processes that a process has started, in the order of their starts; none where it has ended."""
    try:
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def objects(workdir: Path) -> dict[str, float]:
    """What lies below a workdir in a bucket, by name, and when it was written, in seconds of the clock."""
    system = gcs.register()
    above = len(system._strip_protocol(str(workdir))) + 1
    return {name[above:]: about["mtime"].timestamp() for name, about in system.find(str(workdir), detail=True).items()}


def stage_among(names: Collection[str]) -> str:
    """As of `stage_of`, from the names of all files in the workdir."""
    begun = {name.partition("/")[0] for name in names if "/" in name}
    return next((s for s in STAGES if s in begun and f"{s}/summary.json" not in names), "")


def stage_of(workdir: Path) -> str:
    """The stage a run is in; empty before the first and after the last."""
    if paths.is_remote(workdir):
        return stage_among(objects(workdir))
    return next((s for s in STAGES if (workdir / s).is_dir() and not (workdir / s / "summary.json").exists()), "")


def finished_saves(workdir: Path) -> dict[str, int]:
    """Stage -> the newest step whose save was finished."""
    return {stage: max(steps.listed(workdir / stage), default=0) for stage in TRAINED}


def first_steps(log: str) -> dict[str, int]:
    """Stage -> the step that a life went on from, by the first progress bar of the stage in what it wrote."""
    found = {}
    for stage, step in _BAR.findall(log):
        found.setdefault(stage, int(step))
    return found


def has_reached(stage: str, log: str) -> bool:
    """Whether a life that wrote this is, or was, at work in a stage or a later one."""
    return any(_AT_WORK[one].search(log) for one in STAGES[STAGES.index(stage) :])


def faults(saved: dict[str, int], log: str) -> list[str]:
    """What a life found amiss: checkpoints that are damaged or lost, given the saves finished before it and what it wrote."""
    wrong = [line for line in log.splitlines() if "is damaged" in line]
    began = first_steps(log)
    return wrong + [f"{s} went back to {began[s]}, though {saved[s]} was saved" for s in began if began[s] < saved[s]]


def saving(workdir: Path, since: float) -> str:
    """The save that a life begun at `since`, in seconds of the clock, is in the midst of; empty where it is in none.

    An unfinished save of an earlier life lies there too, but nobody changes it until its step is saved again.
    """
    if paths.is_remote(workdir):
        return _saving_in_bucket(workdir, since)
    for path in workdir.glob("*/checkpoints/*.orbax-checkpoint-tmp"):
        if _changed(path) > since:
            return f"the save of step {path.name.partition('.')[0]} of {path.parents[1].name}"
    return ""


def _saving_in_bucket(workdir: Path, since: float) -> str:
    """As of `saving`: a step of which objects were written in this life, but not yet the mark."""
    found = objects(workdir)
    stage, written, marked = stage_among(found), {}, set()
    for name, when in found.items():
        owner, _, rest = name.partition("/checkpoints/")
        if owner == stage and stage in TRAINED and rest:
            step, _, rest = rest.partition("/")
            written[step] = max(written.get(step, 0.0), when)
            marked |= {step} if rest == gcs.COMMITTED else set()
    torn = [step for step, when in written.items() if when > since and step not in marked]
    return f"the save of step {torn[0]} of {stage}" if torn else ""


def rolling_out(workdir: Path, since: float) -> str:
    """The rollout that a life begun at `since` is in the midst of, once it has made an update; empty where it is in none."""
    step, made, next_one = _step_of_rl(workdir, since)
    return f"the rollout of step {step} of rl" if made and not next_one else ""


def updating(workdir: Path, since: float) -> str:
    """As of `rolling_out`: the scoring and the update that follow a rollout."""
    step, made, next_one = _step_of_rl(workdir, since)
    return f"the update of step {step} of rl" if made and next_one else ""


def _step_of_rl(workdir: Path, since: float) -> tuple[int, bool, bool]:
    """(the step that a life is at, whether it drew rollouts of the step before it, and of this one); false if it is in none."""
    metrics, rollouts = workdir / "rl" / "metrics.jsonl", workdir / "rl" / "rollouts"
    if stage_of(workdir) != "rl" or _changed(metrics) <= since:
        return 0, False, False
    step = len(metrics.read_text().splitlines())
    made, next_one = (_changed(rollouts / f"{number:06d}.jsonl") > since for number in (step - 1, step))
    steps = json.loads((workdir / "config.json").read_text())["rl"]["steps"]
    return step, made and step < steps, next_one


def _changed(path: pathlib.Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


Aim = Callable[[Path, float], str]


def aims(workdir: Path) -> list[Aim | None]:
    """What can be aimed at in the stage that a run is in; None is any moment."""
    stage = stage_of(workdir)
    seen = not paths.is_remote(workdir)  # metrics reach a bucket too late to tell by them what is drawn now
    return [None] + [saving] * (stage in TRAINED) + [rolling_out] * (stage == "rl" and seen)


class Pod:
    """A run of the README's command in a directory, life after life, each on the next of `meshes`.

    Several processes on a single mesh are started again by the launcher; else the command is given anew.
    """

    def __init__(self, directory: pathlib.Path, overrides: Sequence[str], meshes: Sequence[Mesh]):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.workdir, self.log = directory, workdir_in(directory, overrides), directory.with_suffix(".log")
        self.saved: dict[str, int] = {}
        """Saves finished before this life."""
        self.began = 0.0
        self.pids: list[int] = []
        self._overrides, self._meshes, self._lives = overrides, meshes, 0
        self._mesh = meshes[0]
        self._started: subprocess.Popen | None = None
        """The launcher or, of one process, the run itself."""
        self._restarts = 1000 if len(meshes) == 1 and meshes[0].processes > 1 else 0
        self._log_begins = 0

    def _there(self) -> list[int]:
        """The processes of the run that have not ended."""
        if self._mesh.processes > 1:
            return children(self._started.pid)
        return [self._started.pid] if self._started.poll() is None else []

    def begin(self) -> None:
        """Waits for the processes of the next life."""
        if self._started is not None and not self._restarts:
            self._started.wait()
        self._mesh = self._meshes[self._lives % len(self._meshes)]
        self._lives, dead = self._lives + 1, set(self.pids)
        self.saved, self.began = finished_saves(self.workdir), time.time()
        self._log_begins = self.log.stat().st_size if self.log.exists() else 0
        if self._started is None or not self._restarts:
            with open(self.log, "ab") as log:
                start = command(self._overrides, self._mesh, self._restarts)
                self._started = subprocess.Popen(start, cwd=self.directory, stdout=log, stderr=log)
        self.pids = []
        while len(self.pids) < self._mesh.processes:
            if self._started.poll() is not None:
                raise InputError(f"the run ended with status {self._started.returncode}; see {self.log}")
            time.sleep(POLL)
            self.pids = [pid for pid in self._there() if pid not in dead]

    def written(self) -> str:
        """What this life has written so far."""
        return self.log.read_bytes()[self._log_begins :].decode(errors="replace")

    def looks(self) -> Iterator[None]:
        """Yields again and again while all processes of this life are there.

        Raises:
          InputError: one has ended by itself.
        """
        while set(self.pids) <= set(self._there()):
            yield
            time.sleep(POLL_IN_BUCKET if paths.is_remote(self.workdir) else POLL)
        raise InputError(f"the run ended before it was killed; use fewer kills or a longer run, or see {self.log}")

    def live(self, seconds: float) -> None:
        """Lets it live for so long."""
        until = time.time() + seconds
        for _ in self.looks():
            if time.time() >= until:
                return

    def reach(self, stage: str) -> None:
        """Lets it live until it is at work in a stage or a later one; where steps are saved, until this life has saved one."""
        for _ in self.looks():
            if has_reached(stage, self.written()) and (
                stage not in TRAINED
                or stage_of(self.workdir) != stage
                or finished_saves(self.workdir)[stage] > self.saved[stage]
            ):
                return

    def wait_for(self, aim: Aim, rng: random.Random) -> str:
        """Waits for a moment in the midst of what is aimed at, and says what it is; empty once the stage has none left."""
        for _ in self.looks():
            if aim not in aims(self.workdir):
                return ""
            if seen := aim(self.workdir, self.began):
                self.live(rng.uniform(0, DELAY))
                if aim(self.workdir, self.began) == seen:
                    return seen
        return ""

    def kill(self, victims: Sequence[int]) -> None:
        """Kills these, and waits until all processes of this life have ended."""
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        while self._started.poll() is None and set(self._there()) & set(self.pids):
            time.sleep(POLL)

    def __enter__(self) -> "Pod":
        return self

    def __exit__(self, *exception) -> None:
        if self._started is not None and self._started.poll() is None:
            for pid in (self._started.pid, *children(self._started.pid)):
                os.kill(pid, signal.SIGKILL)
            self._started.wait()

    def end(self) -> None:
        """Lets it live to the end of the run; InputError where that is a bad one, or it died more often than it was killed."""
        if self._started.wait():
            raise InputError(f"the run ended with status {self._started.returncode}; see {self.log}")
        died, killed = self.log.read_text(errors="replace").count("launch: a process ended"), self._lives - 1
        if died > killed:
            raise InputError(f"the run was killed {killed} times and died {died - killed} more; see {self.log}")


def run_killed(
    directory: pathlib.Path,
    overrides: Sequence[str],
    meshes: Sequence[Mesh],
    kills: int,
    life: float,
    seed: int,
    stages: Sequence[str] = (),
) -> tuple[list[str], list[str]]:
    """Runs training in a directory, killing it `kills` times; whom, when and during what is drawn from `seed`.

    A life lasts up to twice `life` seconds, and then to the next moment of the kind that is aimed at. Where `stages` are given,
    the kills are dealt to them in order, and the seconds count from when a life is at work in its stage and has saved a step.

    Returns:
      (a line for every life: where it began and how it ended, faults found: see `faults`).
    """
    rng, lines, wrong = random.Random(seed), [], []

    def note(pod: Pod, ended: str) -> None:
        log = pod.written()
        began = ", ".join(f"{stage} from step {step}" for stage, step in first_steps(log).items())
        mesh = f"mesh {len(lines) % len(meshes) + 1}, " if len(meshes) > 1 else ""
        lines.append(f"{mesh}{began or 'no step begun'}; {ended}")
        wrong.extend(f"life {len(lines)}: {fault}" for fault in faults(pod.saved, log))
        print(f"{len(lines)}. {lines[-1]}", flush=True)

    with Pod(directory, overrides, meshes) as pod:
        for number in range(kills):
            pod.begin()
            if stages:
                pod.reach(stages[number * len(stages) // kills])
            pod.live(rng.uniform(0, 2 * life))
            note(pod, kill_somewhere(pod, rng))
        pod.begin()
        pod.end()
        note(pod, "lived to the end")
    return lines, wrong


def kill_somewhere(pod: Pod, rng: random.Random) -> str:
    """Kills one process or all, now or at the next moment of a kind drawn; says whom and when."""
    aim = rng.choice(aims(pod.workdir))
    aimed_at = pod.wait_for(aim, rng) if aim else ""
    victims = pod.pids if rng.random() < 0.5 else [rng.choice(pod.pids)]
    place, lived = aimed_at or stage_of(pod.workdir) or "no stage", time.time() - pod.began
    pod.kill(victims)
    whom = "all processes" if len(victims) == len(pod.pids) else f"process {pod.pids.index(victims[0])}"
    torn = bool(saving(pod.workdir, pod.began))
    outcome = f", {'left unfinished' if torn else 'finished all the same'}" if aimed_at and aim is saving else ""
    return f"{whom} killed after {lived:.1f} s in {place}{outcome}"


def run_undisturbed(directory: pathlib.Path, overrides: Sequence[str], mesh: Mesh) -> float:
    """Runs training in a directory undisturbed; returns its seconds."""
    directory.mkdir(parents=True)
    start = time.monotonic()
    with open(directory.with_suffix(".log"), "ab") as log:
        subprocess.run(command(overrides, mesh), cwd=directory, check=True, stdout=log, stderr=log)
    return time.monotonic() - start
