"""TPU VMs as queued resources: the `gcloud` commands that create, reach and delete them, and what their states mean.

A queued resource is a request for slices: it waits, becomes ACTIVE with its TPU VMs READY, and may lose them at any time. A
Spot VM that was taken away cannot be restarted, and the state that it leaves behind is not always the same: whatever is
neither waiting nor ACTIVE and READY is lost, and the request is deleted and made again.
"""

import dataclasses
import enum
import shlex
from collections.abc import Callable, Sequence

from spct_jax.errors import InputError
from spct_jax.launching import run as run_lib
from spct_jax.launching.run import Run

DIRECTORY = "spct_jax"
"""The copy of the repository in the home directory of each host."""
ARCHIVE = "spct_jax.tgz"
COPIED = ("setup.py", "pyproject.toml", "README.md", "spct_jax", "experiments", "launch")
"""What hosts need of the repository; the image has the same."""
PROVISIONING = ("spot", "reserved", "flex-start", "on-demand")
_WORKER = "launch/worker.sh"
_WAITING = ("ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "CREATING")
_PENDING_NODES = ("CREATING", "STARTING", "RESTARTING")


class State(enum.Enum):
    """What a request's state means."""

    ABSENT = "absent"
    WAITING = "waiting"
    READY = "ready"
    LOST = "lost"


class GcloudError(Exception):
    """A `gcloud` command failed; the message is its own."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit status."""

    status: int
    out: str = ""
    err: str = ""


Call = Callable[[Sequence[str]], Answer]
"""Runs a command line."""


@dataclasses.dataclass(frozen=True)
class Request:
    """The slices that are wanted, and how to reach them."""

    run: Run
    zone: str
    project: str = ""
    provisioning: str = "on-demand"
    """One of `PROVISIONING`."""
    runtime: str = ""
    """Software version of the VMs; empty: what fits the chip."""
    valid_hours: int = 0
    """The request ends if it has waited so long; 0: never."""
    run_hours: int = 0
    """The slices go back after so long; of flex-start."""
    internal_ip: bool = False
    """Whether VMs have no external address and are reached by internal ones."""

    def __post_init__(self):
        """Raises InputError if there are no such TPU VMs, or if options contradict each other."""
        chip = self.run.slice.generation
        run_lib.check_name(self.run.name, 60)
        if not chip.runtime:
            raise InputError(f"--topology={self.run.slice.name}: there are no TPU VMs of this chip; use launch/gke.py")
        if chip.vm_prefix and not self.run.slice.vm_type:
            raise InputError(f"--topology={self.run.slice.name}: the TPU VM API has no name for it, only for more cubic shapes")
        if self.provisioning == "flex-start" and not self.run_hours:
            raise InputError("--provisioning=flex-start needs --run_hours")
        if self.run_hours and self.provisioning != "flex-start":
            raise InputError("--run_hours goes with --provisioning=flex-start only")
        if self.provisioning == "flex-start" and self.run.slices > 1:
            raise InputError("--provisioning=flex-start is for one slice")

    @property
    def nodes(self) -> list[str]:
        """The TPU VMs' names, one for each slice."""
        name, count = self.run.name, self.run.slices
        return [name] if count == 1 else [f"{name}-{index}" for index in range(count)]

    def _where(self) -> list[str]:
        return [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]

    def _resources(self, verb: str, *rest: str) -> list[str]:
        track = ["alpha"] if self.provisioning == "flex-start" and verb == "create" else []
        return ["gcloud", *track, "compute", "tpus", "queued-resources", verb, self.run.name, *self._where(), *rest]

    def create(self) -> list[str]:
        """Makes the request."""
        run, chip = self.run, self.run.slice.generation
        kind = [f"--accelerator-type={run.slice.vm_type}"]
        if not chip.vm_prefix:
            kind = [f"--type={run.slice.chip}", f"--topology={run.slice.topology}"]
        nodes = [f"--node-id={run.name}"]
        if run.slices > 1:
            nodes = [f"--node-count={run.slices}", f"--node-prefix={run.name}"]
        how = {
            "spot": ["--spot"],
            "reserved": ["--reserved"],
            "flex-start": ["--provisioning-model=flex-start", f"--max-run-duration={self.run_hours}h"],
            "on-demand": [],
        }[self.provisioning]
        limit = [f"--valid-until-duration={self.valid_hours}h"] if self.valid_hours else []
        inside = ["--internal-ips"] if self.internal_ip else []
        runtime = f"--runtime-version={self.runtime or chip.runtime}"
        return self._resources("create", *kind, runtime, *nodes, *how, *limit, *inside)

    def describe(self) -> list[str]:
        """Prints the request's state."""
        return self._resources("describe", "--format=value(state.state)")

    def delete(self) -> list[str]:
        """Gives up the request and its VMs."""
        return self._resources("delete", "--force", "--async", "--quiet")

    def describe_node(self, node: str) -> list[str]:
        """Prints the state of one slice's TPU VM."""
        return ["gcloud", "compute", "tpus", "tpu-vm", "describe", node, *self._where(), "--format=value(state)"]

    def ssh(self, node: str, command: str, worker: str = "all") -> list[str]:
        """Runs a command on the hosts of a slice."""
        inside = ["--internal-ip"] if self.internal_ip else []
        reach = [f"--worker={worker}", *inside, f"--command={command}"]
        return ["gcloud", "compute", "tpus", "tpu-vm", "ssh", node, *self._where(), *reach]

    def copy(self, node: str, archive: str) -> list[str]:
        """Copies the archive of the repository to the hosts of a slice."""
        inside = ["--internal-ip"] if self.internal_ip else []
        target = [archive, f"{node}:{ARCHIVE}", *self._where(), "--worker=all", *inside]
        return ["gcloud", "compute", "tpus", "tpu-vm", "scp", *target]

    def deploy(self, node: str, archive: str) -> list[list[str]]:
        """Brings the repository to the hosts of a slice and installs it there."""
        clear = f"mkdir -p {DIRECTORY} && find {DIRECTORY} -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {{}} +"
        unpack = f"{clear} && tar --extract --gzip --file={ARCHIVE} --directory={DIRECTORY}"
        install = shlex.join(["bash", f"{DIRECTORY}/{_WORKER}", "install"])
        return [self.copy(node, archive), self.ssh(node, f"{unpack} && {install}")]

    def start(self, node: str) -> list[str]:
        """Starts the run on the hosts of a slice; they find each other by the metadata server."""
        variables = [f"{name}={value}" for name, value in self.run.environment.items()]
        return self.ssh(node, shlex.join(["bash", f"{DIRECTORY}/{_WORKER}", "start", *variables, "--", *self.run.command]))

    def status(self, node: str) -> list[str]:
        """Prints a line `status: ..` for each host of a slice."""
        script = f"{DIRECTORY}/{_WORKER}"
        return self.ssh(node, f"if [ -e {script} ]; then bash {script} status; else echo 'status: none'; fi")

    def stop(self, node: str, seconds: int) -> list[str]:
        """Tells the run to stop on the hosts of a slice and waits until it has."""
        return self.ssh(node, shlex.join(["bash", f"{DIRECTORY}/{_WORKER}", "stop", str(seconds)]))

    def log(self) -> list[str]:
        """Prints the log of the first host of the first slice as it grows."""
        return self.ssh(self.nodes[0], "tail --lines=200 --follow=name --retry .spct_jax/log", worker="0")


def state(request: Request, call: Call) -> State:
    """What has become of a request and its VMs.

    Raises:
      GcloudError: it cannot be told, for want of a network or of rights.
    """
    found = _described(request.describe(), call)
    if found is None:
        return State.ABSENT
    if found != "ACTIVE":
        return State.WAITING if found in _WAITING else State.LOST
    nodes = [_described(request.describe_node(node), call) for node in request.nodes]
    if all(node == "READY" for node in nodes):
        return State.READY
    return State.WAITING if all(node in ("READY", *_PENDING_NODES) for node in nodes) else State.LOST


def _described(command: list[str], call: Call) -> str | None:
    answer = call(command)
    if answer.status == 0:
        return answer.out.strip()
    if "NOT_FOUND" in answer.err or "not found" in answer.err:
        return None
    raise GcloudError(answer.err.strip() or f"gcloud ended with status {answer.status}")
