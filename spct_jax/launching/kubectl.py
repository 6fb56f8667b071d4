"""Manifests as text, and their way to a cluster."""

import shutil
import subprocess
from typing import Any

import yaml

from spct_jax.errors import InputError


def to_yaml(manifest: dict[str, Any]) -> str:
    """What dry runs print and `create` sends."""
    return yaml.safe_dump(manifest, sort_keys=False, width=1000)


def create(manifest: dict[str, Any]) -> None:
    """Hands a manifest to `kubectl create`, for the cluster and with the rights that kubectl is set up for.

    Raises:
      InputError: there is no kubectl, or it refuses; it has then said why.
    """
    if shutil.which("kubectl") is None:
        raise InputError("kubectl is not installed; see https://kubernetes.io/docs/tasks/tools/")
    if subprocess.run(["kubectl", "create", "--filename=-"], input=to_yaml(manifest), text=True).returncode:
        raise InputError("kubectl refused it (see above)")
