"""Where and how a GKE cluster runs something, as fields and as flags."""

import dataclasses
import re

from absl import flags

from spct_jax.errors import InputError
from spct_jax.launching import run as run_lib
from spct_jax.launching.flags import RunFlags

flags.disclaim_key_flags()  # those defined here belong to the command, so that its --help shows them

MOST = (1 << 31) - 1
"""Of the numbers in a JobSet."""
SPOT_GRACE = 25
"""Seconds; GKE wants no more on Spot machines, and gives a pod about 15 of them."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Options of a cluster; a flag each."""

    image: str
    namespace: str = "default"
    spot: bool = False
    reservation: str = ""
    queue: str = ""
    priority: str = ""
    service_account: str = ""
    placement_policy: str = ""
    grace_seconds: int = 600
    max_restarts: int = 10
    keep_seconds: int = 43200

    def __post_init__(self):
        """Raises InputError if a name cannot be one, or if options contradict each other."""
        if not self.image:
            raise InputError("--image: give the image that launch/Dockerfile builds, as REGISTRY/NAME:TAG")
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._/:@-]*", self.image):
            raise InputError(f"--image={self.image}: not the name of an image, such as REGISTRY/NAME:TAG")
        for name in ("namespace", "queue", "priority", "service_account", "reservation", "placement_policy"):
            if value := getattr(self, name):
                run_lib.check_name(value, flag=f"--{name}")
        if self.spot and self.reservation:
            raise InputError("--spot and --reservation exclude each other")
        if self.priority and not self.queue:
            raise InputError("--priority needs --queue")

    @property
    def grace(self) -> int:
        """Seconds from SIGTERM to SIGKILL."""
        return min(self.grace_seconds, SPOT_GRACE) if self.spot else self.grace_seconds


HELP = {
    "image": "Container image, as launch/Dockerfile builds it.",
    "namespace": "Of the JobSet.",
    "spot": "On Spot machines.",
    "reservation": "On machines of this reservation only.",
    "queue": "Kueue's local queue.",
    "priority": "Kueue's workload priority class.",
    "service_account": "The pods' Kubernetes service account; what it may do with buckets, they may.",
    "placement_policy": "Of the node pools; for tpu7x.",
    "grace_seconds": f"Between SIGTERM and SIGKILL; at most {SPOT_GRACE} with --spot.",
    "max_restarts": "After failures; to be told to stop does not count.",
    "keep_seconds": "Until a finished JobSet is deleted, with its logs.",
}


class ClusterFlags:
    """A flag for each field of `Cluster`."""

    def __init__(self, values: flags.FlagValues):
        """Defines the flags in a command's own `values`."""
        self._flags = {}
        for field in dataclasses.fields(Cluster):
            default = "" if field.name == "image" else field.default
            define = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, str: flags.DEFINE_string}[type(default)]
            bounds = {"lower_bound": 0, "upper_bound": MOST} if type(default) is int else {}
            self._flags[field.name] = define(field.name, default, HELP[field.name], flag_values=values, **bounds)

    def cluster(self, run: RunFlags) -> Cluster:
        """The options, in a dry run with something that stands for an image; raises InputError as `Cluster` does."""
        options = {name: flag.value for name, flag in self._flags.items()}
        options["image"] = options["image"] or "IMAGE" * run.dry_run
        return Cluster(**options)
