"""GKE and TPU VMs played on one machine: what they tell each process, and what becomes of a run when one ends.

A process learns of the others as on the real thing: on GKE from variables that GKE sets in pods, on TPU VMs from the metadata
server. JAX asks that server on GKE as well, for what no variable says, so each process has one of its own in both cases.
"""

import contextlib
import dataclasses
import http.server
import pathlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from spct_jax.errors import STOPPED, WRONG, InputError

CLUSTER = "SPCT_JAX_CLUSTER"
"""Tells `distributed.initialize` on a machine without chips how JAX is to look for the other processes."""
_HOST = "localhost"


@dataclasses.dataclass(frozen=True)
class Process:
    """One process of a run."""

    command: list[str]
    environment: dict[str, str]
    """Variables beside those of this machine."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What all hosts run, and what an exit status means."""

    command: list[str]
    environment: dict[str, str]
    hosts: int
    """Of each slice."""
    slices: int
    action: Callable[[int], str]
    """From the exit status of the first process that failed to an action of JobSet's failure policy."""
    max_restarts: int


FAIL, RESTART, RESTART_FREE = "FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"
"""Actions of a failure policy: end the run, start it again, start it again without counting."""


def usual_action(status: int) -> str:
    """What launchers make of an exit status where no file says it."""
    return FAIL if status == WRONG else RESTART_FREE if status == STOPPED else RESTART


def read_jobset(path: str) -> Job:
    """The job of a file that `launch/gke.py` printed.

    Raises:
      InputError: it is another file.
    """
    try:
        manifest = yaml.safe_load(pathlib.Path(path).read_text(encoding="utf-8"))
        (replicated,) = manifest["spec"]["replicatedJobs"]
        job = replicated["template"]["spec"]
        (container,) = job["template"]["spec"]["containers"]
        numbers = (job["completions"], replicated["replicas"], manifest["spec"]["failurePolicy"]["maxRestarts"])
        if any(type(number) is not int for number in numbers) or min(numbers[:2]) < 1 or numbers[2] < 0:
            raise ValueError
        action(manifest, WRONG)
        return Job(
            [_plain(part) for part in container["command"]],
            {one["name"]: _plain(one["value"]) for one in container["env"]},
            *numbers[:2],
            lambda status: action(manifest, status),
            numbers[2],
        )
    except (yaml.YAMLError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"--jobset={path}: not a JobSet as launch/gke.py prints it ({type(error).__name__})") from None


def _plain(text: str) -> str:
    """The text as Kubernetes hands it on."""
    return text.replace("$$", "$")


def action(manifest: dict[str, Any], status: int, condition: str = "") -> str:
    """What the controllers of Job and JobSet make of a pod that ended with a status and a condition.

    Job fails with a message of the first rule of its policy that matches, worded as Kubernetes does; JobSet takes the first of
    its own rules that knows the reason and finds one of its patterns in the message.
    """
    (replicated,) = manifest["spec"]["replicatedJobs"]
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    for index, rule in enumerate(replicated["template"]["spec"]["podFailurePolicy"]["rules"]):
        matching = f"matching {rule['action']} rule at index {index}"
        if status in rule.get("onExitCodes", {}).get("values", ()):
            container = rule["onExitCodes"]["containerName"]
            reason, message = "PodFailurePolicy", f"Container {container} for pod a/b failed with exit code {status} {matching}"
            break
        if any(condition == wanted["type"] for wanted in rule.get("onPodConditions", ())):
            reason, message = "PodFailurePolicy", f"Pod a/b has condition {condition} {matching}"
            break
    for rule in manifest["spec"]["failurePolicy"]["rules"]:
        found = any(re.search(pattern, message) for pattern in rule["onJobFailureMessagePatterns"])
        if reason in rule["onJobFailureReasons"] and found:
            return rule["action"]
    return RESTART


def processes(job: Job, platform: str, port: int, servers: list["MetadataServer"]) -> list[Process]:
    """The processes of one life of a run.

    Args:
      job: what they run.
      platform: `gke`, or `tpu_vm`.
      port: of the coordinator; JAX's usual one could be taken on a machine with several runs.
      servers: one for each process, as of `metadata_servers`.
    """
    common = job.environment | {"JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_PORT": str(port), "NO_PROXY": "*"}
    made = []
    for index, server in enumerate(servers):
        told = {"GCE_METADATA_IP": server.address, CLUSTER: "gketpu" if platform == "gke" else "gcetpu"}
        if platform == "gke":
            told |= _gke(index, job.hosts, job.slices)
        made.append(Process(job.command, common | told))
    return made


def _gke(index: int, hosts: int, slices: int) -> dict[str, str]:
    """What GKE sets in the pod with this index of all slices' pods."""
    told = {"TPU_WORKER_ID": str(index % hosts), "TPU_WORKER_HOSTNAMES": ",".join([_HOST] * hosts)}
    return told | (_slices(index // hosts, slices) if slices > 1 else {})


def _slices(index: int, slices: int) -> dict[str, str]:
    return {
        "MEGASCALE_COORDINATOR_ADDRESS": _HOST,
        "MEGASCALE_NUM_SLICES": str(slices),
        "MEGASCALE_SLICE_ID": str(index),
        "MEGASCALE_PORT": "8080",
    }


class MetadataServer(http.server.ThreadingHTTPServer):
    """Answers what JAX asks of the metadata server of a TPU VM."""

    daemon_threads = True

    def __init__(self, attributes: dict[str, str]):
        """Serves the attributes of an instance on a free port of this machine."""
        self.attributes = attributes
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # noqa: N802 (the library's name)
        """An attribute, for those that ask as the metadata server demands."""
        name = self.path.removeprefix("/computeMetadata/v1/instance/attributes/")
        known = self.server.attributes.get(name) if self.headers.get("Metadata-Flavor") == "Google" else None
        self.send_response(200 if known is not None else 404)
        self.end_headers()
        self.wfile.write((known or "").encode())

    def log_message(self, *_) -> None:
        """Says nothing."""


@contextlib.contextmanager
def metadata_servers(platform: str, hosts: int, slices: int) -> Iterator[list[MetadataServer]]:
    """One server for each host of some slices; on GKE it knows no TPU VM, and on TPU VMs all that a process must know."""
    servers = []
    for index in range(hosts * slices):
        environment = _slices(index // hosts, slices) if slices > 1 and platform == "tpu_vm" else {}
        attributes = {"tpu-env": "\n".join(f"{name}: '{value}'" for name, value in environment.items())}
        if platform == "tpu_vm":
            attributes["agent-worker-number"] = str(index % hosts)
            attributes["worker-network-endpoints"] = ",".join([_HOST] * hosts)
        servers.append(MetadataServer(attributes))
    threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield servers
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
