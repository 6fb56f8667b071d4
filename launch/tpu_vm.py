r"""Runs training, the judge or a benchmark on TPU VMs, asked for as queued resources.

    python launch/tpu_vm.py create --zone=us-east5-a --topology=v5p:2x2x4 --config=experiments/gemma2_9b.py --bucket=gs://BUCKET
    python launch/tpu_vm.py watch .. (the same flags)

create asks for the slices. run waits for them, copies this repository to all hosts, installs it and starts the run. watch does
all of this and looks after the run until it ends: VMs that are lost are asked for again, and the run goes on from its last
checkpoint. logs follows the log of the first host. stop tells the run to save and end, and with --delete gives the slices back.
With --dry_run the commands are printed instead. See docs/launch.md.
"""

import spct_jax  # noqa: F401 - the first, so that Ctrl-C while the others are imported ends with one line

# isort: split
import shlex
import shutil
import subprocess
import sys

from absl import flags

from spct_jax import cli
from spct_jax.errors import InputError
from spct_jax.launching import queued_resources
from spct_jax.launching.flags import RunFlags, split
from spct_jax.launching.queued_resources import GcloudError, Request
from spct_jax.launching.watching import Watch, subprocess_call

MOST_SECONDS = 86_400
"""Between two looks at the state."""
VERBS = ("create", "run", "logs", "stop", "watch")
ARGV, BEHIND = split(cli.spelled_out(sys.argv))
FLAGS = flags.FlagValues()
RUN = RunFlags(FLAGS)
ZONE = flags.DEFINE_string("zone", "", "Of the slices, such as us-east5-a.", flag_values=FLAGS)
PROJECT = flags.DEFINE_string("project", "", "Default: that of gcloud.", flag_values=FLAGS)
PROVISIONING = flags.DEFINE_enum(
    "provisioning", "on-demand", queued_resources.PROVISIONING, "How the slices are had.", flag_values=FLAGS
)
RUNTIME = flags.DEFINE_string("runtime", "", "Software version of the VMs; default: what fits the chip.", flag_values=FLAGS)
VALID_HOURS = flags.DEFINE_integer("valid_hours", 0, "Give up waiting after so long; 0: never.", 0, flag_values=FLAGS)
RUN_HOURS = flags.DEFINE_integer("run_hours", 0, "Give flex-start slices back after so long.", 0, flag_values=FLAGS)
INTERNAL_IP = flags.DEFINE_bool("internal_ip", False, "VMs without external addresses.", flag_values=FLAGS)
MAX_RESTARTS = flags.DEFINE_integer("max_restarts", 10, "Of watch, after failures.", 0, flag_values=FLAGS)
STOP_SECONDS = flags.DEFINE_integer("stop_seconds", 600, "Of stop: how long the run may take to save.", 0, flag_values=FLAGS)
DELETE = flags.DEFINE_bool("delete", False, "Of stop and watch: give the slices back at the end.", flag_values=FLAGS)
POLL_SECONDS = flags.DEFINE_float("poll_seconds", 30.0, "Between two looks at the state.", 0.0, flag_values=FLAGS)


def commands(verb: str, request: Request) -> list[list[str]]:
    """The commands that a verb runs where all goes well and nothing has to be waited for."""
    nodes = request.nodes
    deployed = [command for node in nodes for command in request.deploy(node, queued_resources.ARCHIVE)]
    started = deployed + [request.start(node) for node in nodes]
    asked = [request.status(node) for node in nodes]
    looked_at = [request.describe(), *map(request.describe_node, nodes)]
    return {
        "create": [request.create()],
        "run": [*looked_at, *asked, *started],
        "logs": [request.log()],
        "stop": [request.stop(node, STOP_SECONDS.value) for node in nodes],
        "watch": [request.create(), *looked_at, *asked, *started, *asked],
    }[verb] + [request.delete()] * (DELETE.value and verb in ("stop", "watch"))


def act(verb: str, request: Request) -> int:
    """Does what a verb says; the exit status."""
    watch = Watch(
        request, subprocess_call, lambda text: print(f"launch: {text}", file=sys.stderr, flush=True), POLL_SECONDS.value
    )
    status = 0
    if verb == "create":
        watch.create()
    elif verb == "run":
        watch.until_ready()
        if "running" in watch.statuses():
            raise InputError("a run is under way there; stop it first, or watch it")
        watch.deploy()
        watch.start()
    elif verb == "logs":
        status = subprocess.run(request.log()).returncode
    elif verb == "stop":
        print(*watch.stop(STOP_SECONDS.value), sep="\n")
    else:
        status = watch.run(MAX_RESTARTS.value)
    if DELETE.value and verb in ("stop", "watch"):
        watch.delete()
    return status


def main(verb: str) -> None:
    """Does what a verb says, or prints how."""
    if not POLL_SECONDS.value <= MOST_SECONDS:  # absl's bounds let NaN pass
        raise InputError(f"--poll_seconds={POLL_SECONDS.value}: not from 0 to {MOST_SECONDS:,}")
    zone = RUN.needed(ZONE.value, "ZONE", "--zone: say where, such as us-east5-a")
    request = Request(
        RUN.run(FLAGS.config, ARGV, BEHIND),
        zone=zone,
        project=PROJECT.value,
        provisioning=PROVISIONING.value,
        runtime=RUNTIME.value,
        valid_hours=VALID_HOURS.value,
        run_hours=RUN_HOURS.value,
        internal_ip=INTERNAL_IP.value,
    )
    if RUN.dry_run:
        for command in commands(verb, request):
            print(shlex.join(command))
        return
    if shutil.which("gcloud") is None:
        raise InputError("gcloud is not installed; see https://cloud.google.com/sdk/docs/install")
    try:
        status = act(verb, request)
    except GcloudError as error:
        raise InputError(f"gcloud: {str(error).splitlines()[-1]}") from None
    sys.exit(status)


if __name__ == "__main__":
    VERB = ARGV.pop(1) if len(ARGV) > 1 and ARGV[1] in VERBS else ""
    if not VERB and not any(a.lstrip("-").startswith("help") for a in ARGV):
        unknown = f"error: unknown verb {ARGV[1]!r}; " if len(ARGV) > 1 and ARGV[1][:1] != "-" else ""
        print(f"{unknown}usage: tpu_vm.py {'|'.join(VERBS)} FLAGS; --help tells them", file=sys.stderr)
        sys.exit(2)
    cli.run(lambda _: main(VERB), FLAGS, with_config=True, argv=ARGV)
