"""Starts a run as several processes on this machine and starts all of them again when one dies.

    python launch/local.py --processes=2 -- python -m spct_jax.train --workdir=DIR --config.mesh.cpu_devices=4

Every process gets --coordinator, --num_processes and --process_id behind its own flags. The exit status is that of the run:
0; 2 where the input is wrong or a loss is not finite, which no restart mends; 75 where it was told to stop (SIGTERM here is
passed on to all).
"""

import argparse
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
    """All processes of one life of the run."""
    shared = [f"--coordinator=localhost:{free_port()}", f"--num_processes={count}"]
    return [subprocess.Popen([*command, *shared, f"--process_id={i}"]) for i in range(count)]


def wait(processes: list[subprocess.Popen], grace: float) -> int:
    """Waits until all have ended, or one badly; then the others have `grace` seconds to end too. The worst exit status."""
    while all(p.poll() in (None, 0) for p in processes) and any(p.poll() is None for p in processes):
        time.sleep(0.1)
    deadline = time.monotonic() + grace
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    found = [p.returncode for p in processes if p.returncode]
    return next((code for code in found if code in FINAL), found[0] if found else 0)


def main() -> int:
    """The run's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--restarts", type=int, default=100, help="How often all are started again.")
    parser.add_argument("--grace", type=float, default=30, help="Seconds that the others have to end when one has died.")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command.")
    flags = parser.parse_args()
    command = flags.command[1:] if flags.command[:1] == ["--"] else flags.command
    if not command or flags.processes < 1:
        parser.error("needs --processes of at least 1 and, behind --, a command")

    processes: list[subprocess.Popen] = []
    stopping = False

    def pass_on(number, _):
        nonlocal stopping
        stopping = True
        for process in processes:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    for life in range(flags.restarts + 1):
        processes[:] = start(command, flags.processes)
        if stopping:  # the signal came while they were started
            pass_on(signal.SIGTERM, None)
        status = wait(processes, flags.grace)
        if status in (0, *FINAL):
            return status
        if stopping:  # a process that still imports its libraries does not listen yet, and dies of the signal
            return STOPPED
        print(f"launch: a process ended with status {status}; restart {life + 1} of {flags.restarts}", file=sys.stderr)
    return status if status > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
