"""Memory of the host and the devices: how much is in use, and how much the C library keeps of what JAX's CPU backend frees.

Of the latter, nothing is done where the library is not glibc.
"""

import ctypes
import platform
import resource
import sys
from collections.abc import Sequence

import jax

LARGE = 2**25
"""Bytes from which on a buffer is a mapping of its own; the most that glibc takes for it."""


def keep() -> None:
    """Has the C library keep small buffers that are freed, and only them; after the first thread it is too late.

    The backend allocates every buffer of every call anew. Left alone, glibc hands memory back after every call, and to get
    cleared pages for the next one takes a fifth of the tiny experiment's updates. Were large buffers kept as well, a small one
    that comes to lie where a large one was would have that take a new place, and so on: gigabytes of holes.
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    for option, value in ((trim_threshold, 2**31 - 1), (mmap_threshold, LARGE), (arena_max, 1)):
        if library := _glibc():
            library.mallopt(option, value)


def end_stage() -> None:
    """Drops compiled programs, a hundred megabytes a stage, and hands back what the C library kept."""
    jax.clear_caches()
    give_back()


def give_back() -> None:
    """Hands back what the C library kept: what comes next needs other buffers."""
    if library := _glibc():
        library.malloc_trim(0)


def of_devices(devices: Sequence[jax.Device] | None = None) -> dict[str, float]:
    """Bytes in use and at most in use so far on the fullest device of this process; nothing where a device does not say."""
    stats = [d.memory_stats() or {} for d in (jax.local_devices() if devices is None else devices)]
    names = {"device_memory_bytes": "bytes_in_use", "device_memory_peak_bytes": "peak_bytes_in_use"}
    return {ours: float(max(s[theirs] for s in stats)) for ours, theirs in names.items() if all(theirs in s for s in stats)}


def peak_gib() -> float:
    """The most memory that this process has had resident so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # of what the system reports, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
