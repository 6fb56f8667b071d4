"""A lock in a bucket: an object that its owner writes again and again, and that whoever wants it takes once that stops.

It is written only if its generation is the one that was last seen, so of several that take it at once one succeeds. The
clocks of two machines are not compared: who finds a lock watches it for `PATIENCE` seconds by its own clock. If it is written
again in that time, its owner lives. If not, the owner was killed, and the lock is taken over. A lock whose owner ran on this
machine and is gone is taken at once.
"""

import contextlib
import json
import os
import pathlib
import secrets
import sys
import threading
import time
from typing import Self

from spct_jax import errors
from spct_jax.errors import InputError
from spct_jax.runtime import distributed
from spct_jax.storage import gcs
from spct_jax.storage.paths import Path

BEAT = 10.0
"""Seconds from one writing to the next."""
PATIENCE = 60.0
"""Seconds without a writing after which an owner counts as gone; it must have failed to write several times."""


class Lease:
    """Keeps a lock until the block ends.

    If the lock is found to be another's, this process ends at once with status 75: it was held up for longer than `PATIENCE`,
    and another run goes on in its place. Until it finds that out, `BEAT` seconds later at the latest, both may write.
    """

    def __init__(self, path: Path, message: str):
        """Takes the lock.

        Args:
          path: the lock's object.
          message: what to say where another run has it.

        Raises:
          InputError: another run has it.
        """
        self._path, self._system = str(path), gcs.register()
        self._content = json.dumps(_this_process() | {"token": secrets.token_hex(8)}).encode()
        self._generation = self._take(message)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError, errors.UnreachableError):  # it would be taken over later
            self._system.remove_if(self._path, self._generation)

    def _take(self, message: str) -> int:
        """The generation of the lock, once it is ours."""
        since, seen = time.monotonic(), None
        while True:
            found = self._system.generation(self._path)
            if found and self._is_ours():
                return found
            if seen is not None and found not in (0, seen):
                raise InputError(message)
            if not found or self._owner_is_gone() or time.monotonic() - since >= PATIENCE:
                with contextlib.suppress(FileExistsError):
                    return self._system.put_if(self._path, self._content, found)
                seen = None  # somebody was quicker: it is a new owner, to be watched from its beginning
                since = time.monotonic()
                continue
            if seen is None:
                print(
                    f"{self._path}: a lock is there; watching for up to {PATIENCE:.0f} s whether its run is alive",
                    file=sys.stderr,
                )
            seen = found
            time.sleep(min(1.0, BEAT / 4))

    def _read(self) -> dict:
        try:
            return json.loads(self._system.cat_file(self._path))
        except (OSError, ValueError):
            return {}

    def _is_ours(self) -> bool:
        return self._read().get("token") == json.loads(self._content)["token"]

    def _owner_is_gone(self) -> bool:
        """Whether the owner ran under this very kernel, in these very process numbers, and its number is free or this one."""
        owner, here = self._read(), _this_process()
        if not owner or any(owner.get(name) != here[name] for name in ("boot", "namespace")):
            return False
        return owner.get("pid") == here["pid"] or not pathlib.Path(f"/proc/{owner.get('pid')}").exists()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                self._generation = self._system.put_if(self._path, self._content, self._generation)
            except (FileExistsError, FileNotFoundError):
                found = self._system.generation(self._path)
                if found and self._is_ours():  # the answer to an earlier request was lost
                    self._generation = found
                    continue
                print(
                    f"error: {self._path}: another run has taken over, since this one was held up", file=sys.stderr, flush=True
                )
                os._exit(distributed.PREEMPTED)
            except (OSError, errors.UnreachableError):
                continue  # what the run itself writes will say so


def _this_process() -> dict[str, str | int]:
    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "namespace": _link("/proc/self/ns/pid"),
    }


def _text(path: str) -> str:
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return secrets.token_hex(8)  # of no other process


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return secrets.token_hex(8)
