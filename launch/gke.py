r"""Runs training, the judge or a benchmark on TPU slices of a GKE cluster, as a JobSet.

    python launch/gke.py --config=experiments/gemma2_27b.py --topology=v5p:4x4x4 --image=IMAGE --bucket=gs://BUCKET
    python launch/gke.py --program=judge --topology=v5e:4x4 --image=IMAGE -- --checkpoint=gs://.. --input=gs://.. --output=gs://..

Prints the JobSet; with --apply, hands exactly that to `kubectl create`. --config.FIELD=VALUE changes the experiment, which is
checked here, before anything waits for chips. What stands behind -- is for the command. See docs/launch.md.
"""

import spct_jax  # noqa: F401 - the first, so that Ctrl-C while the others are imported ends with one line

# isort: split
import sys

from absl import flags

from spct_jax import cli
from spct_jax.errors import InputError
from spct_jax.launching import jobset, kubectl
from spct_jax.launching.cluster import ClusterFlags
from spct_jax.launching.flags import RunFlags, split

ARGV, BEHIND = split(cli.spelled_out(sys.argv))
FLAGS = flags.FlagValues()
RUN = RunFlags(FLAGS)
CLUSTER = ClusterFlags(FLAGS)
APPLY = flags.DEFINE_bool("apply", False, "Hand the JobSet to kubectl.", flag_values=FLAGS)


def main(_) -> None:
    """Prints the JobSet or creates it."""
    if APPLY.value and RUN.dry_run:
        raise InputError("--apply and --dry_run exclude each other")
    run = RUN.run(FLAGS.config, ARGV, BEHIND)
    manifest = jobset.render(run, CLUSTER.cluster(RUN))
    if APPLY.value:
        jobset.check_kept(run)
        kubectl.create(manifest)
    else:
        print(kubectl.to_yaml(manifest), end="")


if __name__ == "__main__":
    cli.run(main, FLAGS, with_config=True, argv=ARGV)
