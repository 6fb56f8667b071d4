"""Trains a generative reward model from nothing to a report: `python -m spct_jax.train --workdir=DIR [--config=FILE.py]`."""

import jax
from absl import flags

from spct_jax import cli, sharding
from spct_jax.config import Config, validate
from spct_jax.pipeline import train
from spct_jax.runtime import distributed
from spct_jax.runtime.process_flags import ProcessFlags
from spct_jax.storage import paths
from spct_jax.storage.paths import Path

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of the run; an interrupted run goes on in it.", required=True, flag_values=FLAGS
)
PROCESSES = ProcessFlags(FLAGS)
PROFILE_PORT = flags.DEFINE_integer(
    "profile_port", 0, "Port where TensorBoard can ask for a profile of the run; 0: none.", 0, 65535, flag_values=FLAGS
)


def main(_) -> None:
    """Entry of `python -m spct_jax.train`."""
    config, workdir = FLAGS.config, paths.parse(WORKDIR.value, "--workdir")
    validate(config)
    sharding.use_devices(config.mesh)
    PROCESSES.join(config.mesh.heartbeat_seconds)
    if PROFILE_PORT.value:
        jax.profiler.start_server(PROFILE_PORT.value)
    distributed.PREEMPTION.listen()
    distributed.end_together(lambda: _train_and_print(config, workdir))


def _train_and_print(config: Config, workdir: Path) -> None:
    made = train(config, workdir)
    if not distributed.is_first():
        return
    for policy, figures in made["accuracy"].items():
        print(policy, "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    print(f"report: {workdir / 'report.md'}")


if __name__ == "__main__":
    cli.run(main, FLAGS, with_config=True)
