"""Starts a run as several processes on this machine and starts all of them again when one dies.

    python launch/local.py --processes=2 -- python -m spct_jax.train --workdir=DIR --config.mesh.cpu_devices=4
    python launch/local.py --jobset=FILE
    python launch/local.py --platform=tpu_vm --processes=2 -- bash launch/entrypoint.sh train --workdir=DIR

Every process gets --coordinator, --num_processes and --process_id behind its own flags. With --platform, it is told of the
others as on GKE or on TPU VMs instead; --jobset runs what launch/gke.py printed, on the CPU. The exit status is the run's:
0; 2 where the input is wrong or a loss is not finite, which no restart mends; 75 where it was told to stop (SIGTERM and SIGINT
here are passed on to all). A run that fails twice in the same way soon after its start is not started a third time. Before each
restart after a short life the launcher waits, twice as long every time. When the launcher dies, its processes do.
"""

import spct_jax  # noqa: F401 - the first, so that Ctrl-C while the others are imported ends with one line

# isort: split
import argparse
import contextlib
import ctypes
import functools
import os
import signal
import socket
import subprocess
import sys
import time

from spct_jax import errors, terminal
from spct_jax.errors import STOPPED, WRONG, InputError
from spct_jax.launching import rehearsal
from spct_jax.launching.rehearsal import Job, Process

FINAL = (WRONG, STOPPED)
"""Exit statuses that a restart would not change."""
MOST = 1_000_000
"""Of a flag that is a number."""
KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGKILL, 128 + signal.SIGTERM)
"""Exit statuses of who was killed, and of a script whose command was."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def told_by_flags(command: list[str], count: int) -> list[Process]:
    """The processes of one life of the run, which are told of each other by flags of their own."""
    shared = [f"--coordinator=localhost:{free_port()}", f"--num_processes={count}"]
    return [Process([*command, *shared, f"--process_id={i}"], {}) for i in range(count)]


def start(processes: list[Process]) -> list[subprocess.Popen]:
    """Starts them, each in a session of its own: a Ctrl-C reaches them through the launcher only."""
    parent = os.getpid()
    started: list[subprocess.Popen] = []
    try:
        for one in processes:
            environment = os.environ | one.environment
            started.append(
                subprocess.Popen(one.command, env=environment, start_new_session=True, preexec_fn=lambda: die_with(parent))
            )
    except BaseException:
        for process in started:
            process.kill()
        raise
    return started


def die_with(parent: int) -> None:
    """Has the system kill this process when its parent dies, however that happens; Linux only."""
    if sys.platform != "linux":
        return
    set_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os._exit(1)


def wait(processes: list[subprocess.Popen], grace: float) -> tuple[int, int]:
    """Waits until all have ended, or one badly; then the others have `grace` seconds to end too.

    Returns:
      The worst exit status, and that of the first process that ended badly.
    """
    first = 0
    while not first and any(p.poll() is None for p in processes):
        first = next((p.returncode for p in processes if p.returncode), 0)
        time.sleep(0.1)
    first = first or next((p.returncode for p in processes if p.returncode), 0)
    deadline = time.monotonic() + grace
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # a script, and what it has started
            process.wait()
    found = [p.returncode for p in processes if p.returncode]
    return next((code for code in found if code in FINAL), found[0] if found else 0), first


class Patience:
    """What earlier lives say of another one."""

    def __init__(self, short: float, longest: float):
        """A life of less than `short` seconds is a short one; waits grow to `longest` seconds."""
        self._short, self._longest = short, longest
        self._lives = 0
        self._last: int | None = None

    def pause(self, seconds: float, status: int) -> float | None:
        """How long to wait after a life of so many seconds that ended so; None where another would end in the same way.

        To be killed says nothing of the next life.
        """
        if seconds >= self._short:
            self._lives, self._last = 0, None
            return 0.0
        same = status == self._last and status not in KILLED
        self._lives, self._last = self._lives + 1, status
        return None if same else min(2.0 ** min(self._lives - 1, 32), self._longest)


def number(kind: type, text: str) -> float:
    """A number of a flag; argparse's error unless it is one of this kind from 0 to a million."""
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if not 0 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no {'integer' if kind is int else 'number'} from 0 to {MOST:,}")
    return value


def parse() -> tuple[argparse.Namespace, Job]:
    """The flags, and what is to run.

    Raises:
      InputError, OSError: --jobset names no JobSet of launch/gke.py, or no file.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whole, seconds = functools.partial(number, int), functools.partial(number, float)
    parser.add_argument("--processes", type=whole, default=2, help="Of each slice.")
    parser.add_argument("--slices", type=whole, default=1)
    parser.add_argument(
        "--platform", choices=("flags", "gke", "tpu_vm"), default="flags", help="How they are told of each other."
    )
    parser.add_argument("--jobset", help="A file of launch/gke.py, which says all but the flags below.")
    parser.add_argument("--restarts", type=whole, default=100, help="How often all are started again.")
    parser.add_argument("--grace", type=seconds, default=30, help="Seconds that the others have to end when one has died.")
    parser.add_argument("--short", type=seconds, default=30, help="Seconds; shorter lives that fail alike are not repeated.")
    parser.add_argument("--longest_wait", type=seconds, default=60, help="Seconds; waits before restarts grow to this.")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command.")
    flags = parser.parse_args()
    command = flags.command[1:] if flags.command[:1] == ["--"] else flags.command
    if flags.jobset:
        if command:
            parser.error("--jobset says what runs; nothing stands behind --")
        flags.platform = "gke"
        return flags, rehearsal.read_jobset(flags.jobset)
    if not command or flags.processes < 1 or flags.slices < 1:
        parser.error("needs --processes of at least 1 and, behind --, a command")
    action = told_action if flags.platform == "flags" else rehearsal.usual_action
    return flags, Job(command, {}, flags.processes, flags.slices, action, flags.restarts)


def told_action(status: int) -> str:
    """As `rehearsal.usual_action`, but who stops one process by hand stops the run."""
    return rehearsal.FAIL if status in FINAL else rehearsal.RESTART


class Launcher:
    """The lives of one run."""

    def __init__(self, flags: argparse.Namespace, job: Job):
        """Passes SIGTERM and SIGINT on from now on."""
        self._flags, self._job = flags, job
        self._processes: list[subprocess.Popen] = []
        self._stopping = False
        signal.signal(signal.SIGTERM, self._pass_on)
        signal.signal(signal.SIGINT, self._pass_on)

    def _pass_on(self, *_) -> None:
        self._stopping = True
        for process in self._processes:
            process.send_signal(signal.SIGTERM)

    def _live(self, servers: list[rehearsal.MetadataServer]) -> tuple[int, int]:
        """One life: as of `wait`."""
        if self._flags.platform == "flags":
            told = told_by_flags(self._job.command, self._job.hosts)
        else:
            told = rehearsal.processes(self._job, self._flags.platform, free_port(), servers)
        self._processes[:] = start(told)
        if self._stopping:  # the signal came while they were started
            self._pass_on()
        return wait(self._processes, self._flags.grace)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < until:
            time.sleep(0.1)

    def run(self, servers: list[rehearsal.MetadataServer]) -> int:
        """The run's exit status."""
        patience, counted = Patience(self._flags.short, self._flags.longest_wait), 0
        while True:
            began = time.monotonic()
            status, first = self._live(servers)
            told = status if status in FINAL else first
            action = self._job.action(128 - told if told < 0 else told) if status else ""
            if status == 0 or action == rehearsal.FAIL:
                return status
            if self._stopping:  # a process that still imports its libraries does not listen yet, and dies of the signal
                return STOPPED
            ended = f"launch: a process ended with status {told}"
            pause = 0.0
            if action == rehearsal.RESTART:
                pause = patience.pause(time.monotonic() - began, first)
                if pause is None:
                    print(f"{ended} twice within {self._flags.short:g} s of its start; not started again", file=sys.stderr)
                    break
                if counted == self._job.max_restarts:
                    break
                counted += 1
                ended += f"; restart {counted} of {self._job.max_restarts}" + f" in {pause:g} s" * (pause > 0)
            else:
                ended += "; started again, which does not count"
            print(ended, file=sys.stderr)
            self._sleep(pause)
            if self._stopping:
                return STOPPED
        return status if status > 0 else 1


def main() -> int:
    """The run's exit status."""
    try:
        flags, job = parse()
        launcher = Launcher(flags, job)
        played = contextlib.nullcontext([])
        if flags.platform != "flags":
            played = rehearsal.metadata_servers(flags.platform, job.hosts, job.slices)
        with played as servers:
            return launcher.run(servers)
    except (InputError, OSError) as error:
        line, status = errors.describe(error)
        print(f"local.py: error: {terminal.on_one_line(line)}", file=sys.stderr)
        return status


if __name__ == "__main__":
    sys.exit(main())
