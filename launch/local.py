"""Starts a run as several processes on this machine and starts all of them again when one dies.

    python launch/local.py --processes=2 -- python -m spct_jax.train --workdir=DIR --config.mesh.cpu_devices=4

Every process gets --coordinator, --num_processes and --process_id behind its own flags. The exit status is that of the run:
0; 2 where the input is wrong or a loss is not finite, which no restart mends; 75 where it was told to stop (SIGTERM and SIGINT
here are passed on to all). A run that fails twice in the same way soon after its start is not started a third time. Before each
restart after a short life the launcher waits, twice as long every time. When the launcher dies, its processes do.
"""

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time

STOPPED = 75
"""Exit status of a run that was told to stop and can go on."""
FINAL = (2, STOPPED)
"""Exit statuses that a restart would not change."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(command: list[str], count: int) -> list[subprocess.Popen]:
    """All processes of one life of the run, each a session of its own: a Ctrl-C reaches them through the launcher only."""
    shared, parent = [f"--coordinator=localhost:{free_port()}", f"--num_processes={count}"], os.getpid()
    started: list[subprocess.Popen] = []
    try:
        for i in range(count):
            line = [*command, *shared, f"--process_id={i}"]
            started.append(subprocess.Popen(line, start_new_session=True, preexec_fn=lambda: die_with(parent)))
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
            process.kill()
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
        same = status == self._last and status not in (-signal.SIGKILL, -signal.SIGTERM)
        self._lives, self._last = self._lives + 1, status
        return None if same else min(2.0 ** (self._lives - 1), self._longest)


def main() -> int:
    """The run's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--restarts", type=int, default=100, help="How often all are started again.")
    parser.add_argument("--grace", type=float, default=30, help="Seconds that the others have to end when one has died.")
    parser.add_argument("--short", type=float, default=30, help="Seconds; shorter lives that fail alike are not repeated.")
    parser.add_argument("--longest_wait", type=float, default=60, help="Seconds; waits before restarts grow to this.")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command.")
    flags = parser.parse_args()
    command = flags.command[1:] if flags.command[:1] == ["--"] else flags.command
    if not command or flags.processes < 1:
        parser.error("needs --processes of at least 1 and, behind --, a command")

    processes: list[subprocess.Popen] = []
    stopping = False

    def pass_on(*_):
        nonlocal stopping
        stopping = True
        for process in processes:
            process.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    patience = Patience(flags.short, flags.longest_wait)
    for life in range(flags.restarts + 1):
        began = time.monotonic()
        try:
            processes[:] = start(command, flags.processes)
        except OSError as error:
            parser.error(f"{command[0]}: {error.strerror}")
        if stopping:  # the signal came while they were started
            pass_on()
        status, first = wait(processes, flags.grace)
        if status in (0, *FINAL):
            return status
        if stopping:  # a process that still imports its libraries does not listen yet, and dies of the signal
            return STOPPED
        ended = f"launch: a process ended with status {first}"
        pause = patience.pause(time.monotonic() - began, first)
        if pause is None:
            print(f"{ended} twice within {flags.short:g} s of its start; not started again", file=sys.stderr)
            break
        if life == flags.restarts:
            break
        print(f"{ended}; restart {life + 1} of {flags.restarts}" + f" in {pause:g} s" * (pause > 0), file=sys.stderr)
        again = time.monotonic() + pause
        while not stopping and time.monotonic() < again:
            time.sleep(0.1)
        if stopping:
            return STOPPED
    return status if status > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
