"""How much of the memory that JAX's CPU backend frees the C library keeps; nothing is done where that is not glibc."""

import ctypes
import platform

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


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
