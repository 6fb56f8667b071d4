"""Memory of the host and the devices: how much is in use, and how much the C library keeps of what JAX's CPU backend frees.

The latter is left alone if the library is not glibc.
"""

import contextlib
import ctypes
import os
import pathlib
import platform
import resource
import sys
from collections.abc import Sequence

import jax

from spct_jax.runtime import hardware

LARGE = 2**25
"""Buffers of at least this many bytes are memory mappings of their own; it is the largest threshold that glibc accepts."""

CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files in which Linux says how much memory a container may use."""


def keep() -> None:
    """Makes the C library keep freed small buffers, and only those; must be called before a first thread is started.

    The backend allocates all buffers anew in every call. By default glibc returns memory to the system after every call, and
    getting cleared pages for the next one takes a fifth of the time of the tiny experiment's updates. If large buffers were
    kept too, a small one could be put where a large one was, which then needs new memory, and so on: gigabytes of holes.
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    for option, value in ((trim_threshold, 2**31 - 1), (mmap_threshold, LARGE), (arena_max, 1)):
        if library := _glibc():
            library.mallopt(option, value)


def keep_large() -> None:
    """Makes the C library keep freed buffers of every size, after `keep`; for models that are small next to the memory.

    An update of the tiny experiment needs 200 MB for itself, and clearing their pages at each call takes a third of its time.
    Holes then take a multiple of the largest buffer: half a gigabyte there, more than a machine has for a large model.
    """
    mmap_max = -4
    if library := _glibc():
        library.mallopt(mmap_max, 0)


def end_stage() -> None:
    """Drops compiled programs, a hundred megabytes a stage, and returns to the system what the C library kept."""
    jax.clear_caches()
    give_back()


def give_back() -> None:
    """Returns to the system what the C library kept, since what follows needs other buffers."""
    if library := _glibc():
        library.malloc_trim(0)


def of_devices(devices: Sequence[jax.Device] | None = None) -> dict[str, float]:
    """Bytes in use, and their peak so far, on the fullest device of this process; nothing if a device does not report them."""
    stats = [d.memory_stats() or {} for d in (jax.local_devices() if devices is None else devices)]
    names = {"device_memory_bytes": "bytes_in_use", "device_memory_peak_bytes": "peak_bytes_in_use"}
    return {ours: float(max(s[theirs] for s in stats)) for ours, theirs in names.items() if all(theirs in s for s in stats)}


def limit(device: jax.Device) -> int:
    """Bytes of a device that programs may use: as it says, or as is known of its kind; of a CPU, its part of half the RAM."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # it is not there, and its programs are only planned
        if reported := (device.memory_stats() or {}).get("bytes_limit"):
            return int(reported)
    known = hardware.device_of(device.device_kind)
    return known.hbm if known else _of_machine() // 2 // jax.local_device_count()


def _of_machine() -> int:
    """Bytes that this process may use, by the machine or by the limit of a container that it is in."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # it is in none, or has no limit
            found.append(int(pathlib.Path(path).read_text()))
    return min(found)


def peak_gib() -> float:
    """The most memory that this process has had resident so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # of what the system reports, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
