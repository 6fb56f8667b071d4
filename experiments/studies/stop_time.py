r"""How long a run takes from SIGTERM to its end, when the signal comes in the midst of a step of RL.

    python experiments/studies/stop_time.py --workdir=/tmp/stops --stops=5 --processes=2 --config.mesh.strategy=fsdp
    python experiments/studies/stop_time.py --workdir=/tmp/stops --within=update --config.rl.accumulate=8

The README's run is started under the launcher, told to stop in the midst of a rollout or of an update, and started again,
`--stops` times. Each time one process is signalled; both must end with status 75, with the state that the step began with on
the disk. Fields of the experiment are set as for training. Prints a table.
"""

import pathlib
import random
import signal
import subprocess
import sys
import time

import kills
from absl import flags

from spct_jax import cli
from spct_jax.errors import InputError

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run goes.", required=True, flag_values=FLAGS)
STOPS = flags.DEFINE_integer("stops", 5, "How often it is told to stop.", lower_bound=1, flag_values=FLAGS)
PROCESSES = flags.DEFINE_integer("processes", 2, "Processes of the run.", lower_bound=2, flag_values=FLAGS)
WITHIN = flags.DEFINE_enum("within", "rollout", ["rollout", "update"], "What it is told to stop in.", flag_values=FLAGS)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the moments.", flag_values=FLAGS)


def stop(directory: pathlib.Path, overrides: list[str], rng: random.Random) -> str:
    """One life: a row of the table."""
    workdir, began = kills.workdir_in(directory), time.time()
    aim = {"rollout": kills.rolling_out, "update": kills.updating}[WITHIN.value]
    with open(directory / "log", "ab") as log:
        command = kills.command(overrides, kills.Mesh(PROCESSES.value))
        with subprocess.Popen(command, cwd=directory, stdout=log, stderr=log) as launcher:
            while not (place := aim(workdir, began)):
                if launcher.poll() is not None:
                    raise InputError(f"the run ended with status {launcher.returncode} before its aim; see {log.name}")
                time.sleep(kills.POLL)
            time.sleep(rng.uniform(0, kills.DELAY))
            victim, sent = rng.choice(kills.children(launcher.pid)), time.monotonic()
            subprocess.run(["kill", f"-{signal.SIGTERM.value}", str(victim)], check=True)
            status = launcher.wait()
            seconds = time.monotonic() - sent
    return f"| {place} | {status} | {kills.finished_saves(workdir)['rl']} | {seconds:.2f} |"


def main(_) -> None:
    """Runs the study."""
    directory = pathlib.Path(WORKDIR.value).absolute()
    if directory.exists():
        raise InputError(f"{directory} exists; choose another --workdir")
    directory.mkdir(parents=True)
    overrides, rng = [a for a in sys.argv[1:] if a.startswith("--config")], random.Random(SEED.value)
    print("| SIGTERM in | status | newest checkpoint | seconds to the end |\n| --- | ---: | ---: | ---: |", flush=True)
    for _ in range(STOPS.value):
        print(stop(directory, overrides, rng), flush=True)


if __name__ == "__main__":
    cli.run(main, FLAGS, with_config=True)
