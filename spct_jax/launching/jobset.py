"""A run as a JobSet for GKE: one replicated job, as many replicas as slices, as many pods in each as a slice has hosts.

Checked against the API of JobSet v0.10.1. GKE itself sets the variables by which the processes find each other; JobSet puts
each job on a node pool of its own and starts all of them again when one fails.
"""

from typing import Any

from spct_jax.errors import STOPPED, WRONG, InputError
from spct_jax.launching import run as run_lib
from spct_jax.launching.cluster import Cluster
from spct_jax.launching.run import Run
from spct_jax.storage import paths

JOB = "slice"
"""Name of the replicated job."""
CONTAINER = "spct-jax"
_SUFFIX = 5
"""Random characters at the end of a pod's name."""
_TOLD = 'echo "launch: the pod ends, $(date -u +%FT%TZ)" > /proc/1/fd/2'
_PORTS = {"libtpu": 8471, "slices": 8080, "coordinator": 8482, "profile": run_lib.PROFILE_PORT}


def render(run: Run, cluster: Cluster) -> dict[str, Any]:
    """The JobSet, ready to be written as YAML.

    Raises:
      InputError: the run's name cannot begin those of its pods.
    """
    longest_pod = f"-{JOB}-{run.slices - 1}-{run.slice.hosts - 1}-"
    run_lib.check_name(run.name, run_lib.LONGEST - len(longest_pod) - _SUFFIX)
    labels = {"kueue.x-k8s.io/queue-name": cluster.queue, "kueue.x-k8s.io/priority-class": cluster.priority}
    labels = {key: value for key, value in labels.items() if value}
    job = {
        "parallelism": run.slice.hosts,
        "completions": run.slice.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": _pod_rules()},
        "template": {"metadata": {"labels": {"app.kubernetes.io/name": CONTAINER}}, "spec": _pod(run, cluster)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": run.name,
            "namespace": cluster.namespace,
            **({"labels": labels} if labels else {}),
            # One job to a node pool, which is one slice.
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "ttlSecondsAfterFinished": cluster.keep_seconds,
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": _failure_policy(cluster.max_restarts),
            "replicatedJobs": [{"name": JOB, "replicas": run.slices, "template": {"spec": job}}],
        },
    }


def check_kept(run: Run) -> None:
    """Raises InputError where a run writes to a pod's own disk: a JobSet as rendered here gives pods no other directory."""
    for argument in run.arguments:
        flag, _, path = argument.lstrip("-").partition("=")
        if flag in ("workdir", "output") and not paths.is_remote(path):
            raise InputError(f"--{flag}={path}: would be on the disks of the pods, and gone with them; give gs://BUCKET/NAME")


def _pod_rules() -> list[dict[str, Any]]:
    """Which failures of a pod fail its job at once with a message that says why; `_failure_policy` reads it."""
    by_status = [
        {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [status]}}
        for status in (WRONG, STOPPED)
    ]
    disrupted = {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return [*by_status, disrupted]


def _failure_policy(max_restarts: int) -> dict[str, Any]:
    """Wrong input ends the run; to be told to stop, evicted or preempted does not count; else all jobs restart, and it counts.

    The patterns are of the messages of Kubernetes' job controller: `Container C for pod N/P failed with exit code 2 matching
    FailJob rule at index 0`, `Pod N/P has condition DisruptionTarget matching FailJob rule at index 2`.
    """
    rules = [
        ("wrongInput", "FailJobSet", [f"failed with exit code {WRONG} matching"]),
        (
            "toldToStop",
            "RestartJobSetAndIgnoreMaxRestarts",
            [f"failed with exit code {STOPPED} matching", "has condition DisruptionTarget matching"],
        ),
    ]
    return {
        "maxRestarts": max_restarts,
        # Nothing new starts before the old pods are gone: they hold the chips and the lock of the workdir.
        "restartStrategy": "BlockingRecreate",
        "rules": [
            {
                "name": name,
                "action": action,
                "onJobFailureReasons": ["PodFailurePolicy"],
                "onJobFailureMessagePatterns": patterns,
            }
            for name, action, patterns in rules
        ],
    }


def _pod(run: Run, cluster: Cluster) -> dict[str, Any]:
    selector = {
        "cloud.google.com/gke-tpu-accelerator": run.slice.generation.accelerator,
        "cloud.google.com/gke-tpu-topology": run.slice.topology,
        "cloud.google.com/gke-spot": "true" if cluster.spot else "",
        "cloud.google.com/reservation-name": cluster.reservation,
        "cloud.google.com/placement-policy-name": cluster.placement_policy,
    }
    tolerated = ["google.com/tpu", *["cloud.google.com/gke-spot"] * cluster.spot]
    return {
        "restartPolicy": "Never",
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "terminationGracePeriodSeconds": cluster.grace,
        **({"serviceAccountName": cluster.service_account} if cluster.service_account else {}),
        "nodeSelector": {key: value for key, value in selector.items() if value},
        "tolerations": [{"key": key, "operator": "Exists"} for key in tolerated],
        "containers": [_container(run, cluster)],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    }


def _container(run: Run, cluster: Cluster) -> dict[str, Any]:
    chips = run.slice.chips_per_host
    return {
        "name": CONTAINER,
        "image": cluster.image,
        "imagePullPolicy": "Always",
        "command": [_verbatim(part) for part in run.command],
        "env": [{"name": name, "value": _verbatim(value)} for name, value in run.environment.items()],
        "ports": [{"name": name, "containerPort": port} for name, port in _PORTS.items()],
        "resources": {"requests": {"google.com/tpu": chips}, "limits": {"google.com/tpu": chips}},
        # The image's user is not root; the chips' device files are root's.
        "securityContext": {"privileged": True, "runAsUser": 0},
        # Only a mark in the log: SIGTERM comes after it, and the grace period counts from its start.
        "lifecycle": {"preStop": {"exec": {"command": ["bash", "-c", _TOLD]}}},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }


def _verbatim(text: str) -> str:
    """Kubernetes puts a variable's value in place of `$(NAME)` and reads `$$` as `$`."""
    return text.replace("$$", "$$$$").replace("$(", "$$(")
