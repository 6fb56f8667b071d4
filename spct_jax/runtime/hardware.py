"""Published figures of TPU chips and GPUs, and descriptions of slices that need not be there."""

import dataclasses
import importlib.util
import os

from spct_jax.errors import InputError
from spct_jax.runtime import slices


@dataclasses.dataclass(frozen=True)
class Device:
    """One device, as JAX counts devices; figures in bytes, seconds and floating-point operations."""

    kind: str
    """What it calls itself, `jax.Device.device_kind`."""
    flops: float
    """Peak bfloat16 operations per second."""
    hbm: int
    """Memory that programs may use, bytes."""
    hbm_bandwidth: float
    """Bytes per second."""


@dataclasses.dataclass(frozen=True)
class Chip(Device):
    """A device of a TPU slice."""

    ici_bandwidth: float
    """Bytes per second that it sends over all its links inside the slice, one way."""
    dcn_bandwidth: float
    """Bytes per second that it sends to other slices."""
    clock: float
    """Cycles per second; at it, the products of its matrix units come to `flops`."""
    devices_per_chip: int = 1
    environment: tuple[tuple[str, str], ...] = ()
    """Environment variables for the compiler."""


GIB = 1 << 30

CHIPS = {
    "v5e": Chip("TPU v5 lite", 197e12, int(15.75 * GIB), 0.81e12, 4 * 45e9, 3.125e9, 1.5e9),
    "v5p": Chip("TPU v5", 459e12, int(95.74 * GIB), 2.765e12, 6 * 90e9, 6.25e9, 1.75e9),
    # At full effort its compiler takes six times as long, for the same peak memory.
    "v6e": Chip(
        "TPU v6 lite",
        918e12,
        int(31.25 * GIB),
        1.64e12,
        4 * 90e9,
        12.5e9,
        1.75e9,
        environment=(("JAX_OPTIMIZATION_LEVEL", "O1"),),
    ),
    # A chip shows as two devices, each with half of everything.
    "tpu7x": Chip("TPU7x", 1153.5e12, int(94.75 * GIB), 3.69e12, 3 * 90e9, 6.25e9, 2.2e9, devices_per_chip=2),
}
"""Peak rates and bandwidths as published; usable memory as the compiler states it when a program is too large.
Clocks follow from the peak rate: 131,072 operations a cycle on v5e, 262,144 on v5p, 524,288 on v6e and half a tpu7x."""

GPUS = (Device("NVIDIA H100 80GB HBM3", 989e12, 81559 << 20, 3.35e12), Device("NVIDIA H200", 989e12, 143771 << 20, 4.8e12))
"""Dense bfloat16 rate and bandwidth as published for the SXM boards; memory as the driver states it."""


def device_of(kind: str) -> Device | None:
    """The published figures of devices that call themselves `kind`; None where there are none here, and for CPUs."""
    return next((device for device in (*CHIPS.values(), *GPUS) if device.kind == kind), None)


def parse_topology(name: str) -> Chip:
    """The chip of a topology such as `v5p:4x4x4`.

    Raises:
      InputError: it names no slice (`slices.parse`), or one of a chip that is not in `CHIPS`.
    """
    chip = slices.parse(name).chip
    if chip not in CHIPS:
        raise InputError(f"--topology={name}: there are no published figures of {chip} here, only of {', '.join(CHIPS)}")
    return CHIPS[chip]


def prepare(chip: Chip) -> None:
    """Sets what the TPU compiler reads from the environment; must be called before JAX is first used.

    Raises:
      InputError: there is no TPU compiler here.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("planning needs the TPU compiler: pip install -e '.[plan]'")
    silence = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}
    silence |= {"TPU_WORKER_ID": "0"}
    # No chip is used: another process may hold the library and the chips.
    needed = {"JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    for name, value in (silence | needed | dict(chip.environment)).items():
        os.environ.setdefault(name, value)


def slice_devices(name: str, count: int) -> list:
    """The devices of `count` slices of a topology, which are descriptions only.

    Raises:
      InputError: the compiler knows no such slice.
    """
    from jax.experimental import topologies

    options = {"num_slices": count} if count > 1 else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except Exception as error:
        raise InputError(f"--topology={name}: the compiler knows no such slice ({str(error).splitlines()[0]})") from None
