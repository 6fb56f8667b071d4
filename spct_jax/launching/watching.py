"""Runs on TPU VMs from request to end: copies, starts, looks after them, and begins again on new VMs where the old are lost."""

import concurrent.futures
import pathlib
import re
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator

from spct_jax.errors import STOPPED, WRONG
from spct_jax.launching import queued_resources, rehearsal
from spct_jax.launching import run as run_lib
from spct_jax.launching.queued_resources import Answer, Call, GcloudError, Request, State

SECONDS = 30.0
"""Between two looks at a request."""
_PATIENCE = 10
"""Looks in a row that may fail for other reasons than lost VMs, such as a network that is away."""
_STOP_SECONDS = 60
"""For a run to end that waits for hosts where it was not started."""


def subprocess_call(command: list[str]) -> Answer:
    """Runs a command line and keeps what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return Answer(done.returncode, done.stdout, done.stderr)


def pack(path: pathlib.Path) -> None:
    """Writes an archive of what hosts need of the repository, as it is in the working tree."""

    def kept(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in info.name else info

    with tarfile.open(path, "w:gz") as archive:
        for name in queued_resources.COPIED:
            archive.add(run_lib.ROOT / name, name, filter=kept)


class Watch:
    """Looks after one run until it ends."""

    def __init__(self, request: Request, call: Call, say: Callable[[str], None], seconds: float = SECONDS):
        """Asks `call` for the state of things every so many seconds and says what is done."""
        self._request, self._call, self._say, self._seconds = request, call, say, seconds

    def _do(self, command: list[str]) -> str:
        answer = self._call(command)
        if answer.status:
            raise GcloudError(
                (answer.err or answer.out).strip() or f"{' '.join(command[:5])} ended with status {answer.status}"
            )
        return answer.out

    def _on_all(self, command: Callable[[str], list[str]]) -> list[str]:
        """Runs a command for every slice at once; what each printed."""
        nodes = self._request.nodes
        with concurrent.futures.ThreadPoolExecutor(len(nodes)) as pool:
            return list(pool.map(lambda node: self._do(command(node)), nodes))

    def create(self) -> None:
        """Makes the request."""
        self._do(self._request.create())
        self._say(f"asked for {self._request.run.slices} of {self._request.run.slice.name}")

    def delete(self) -> None:
        """Gives up the request and waits until it is gone, since it has a name that is needed again."""
        self._do(self._request.delete())
        while queued_resources.state(self._request, self._call) is not State.ABSENT:
            time.sleep(self._seconds)

    def deploy(self) -> None:
        """Copies the repository to all hosts and installs it."""
        with tempfile.TemporaryDirectory() as directory:
            archive = pathlib.Path(directory) / queued_resources.ARCHIVE
            pack(archive)

            def deployed(node: str) -> None:
                for command in self._request.deploy(node, str(archive)):
                    self._do(command)

            with concurrent.futures.ThreadPoolExecutor(len(self._request.nodes)) as pool:
                list(pool.map(deployed, self._request.nodes))
        self._say("copied the repository to all hosts and installed it")

    def start(self) -> None:
        """Starts the run on all hosts."""
        self._on_all(self._request.start)
        self._say("started the run on all hosts")

    def stop(self, seconds: int) -> list[str]:
        """Tells the run to stop; how it ended on each host."""
        return _statuses(self._on_all(lambda node: self._request.stop(node, seconds)))

    def statuses(self) -> list[str]:
        """`none`, `running` or `ended N` for each host.

        Raises:
          GcloudError: a host cannot be reached, or is not among those that answered.
        """
        found = _statuses(self._on_all(self._request.status))
        wanted = self._request.run.slices * self._request.run.slice.vm_hosts
        if len(found) != wanted:
            raise GcloudError(f"{len(found)} of {wanted} hosts answered")
        return found

    def until_ready(self) -> None:
        """Waits for the VMs; where they are lost or there is no request, makes it anew."""
        told = None
        while (now := queued_resources.state(self._request, self._call)) is not State.READY:
            if now is State.WAITING:
                if now is not told:
                    self._say("waiting for the slices")
                time.sleep(self._seconds)
            else:
                if now is State.LOST:
                    self._say("the slices are lost")
                    self.delete()
                self.create()
            told = now

    def run(self, max_restarts: int) -> int:
        """Brings the run to its end; its exit status.

        It is started again as GKE would: without counting after it was told to stop or its VMs were lost, up to `max_restarts`
        times after failures, never after wrong input.
        """
        failures = 0
        for found in self._lives():
            status = _worst(found)
            if status == 0:
                return 0
            action = rehearsal.usual_action(status)
            if action == rehearsal.RESTART:
                failures += 1
            if action == rehearsal.FAIL or failures > max_restarts:
                self._say(f"the run has ended with status {status} and is not started again")
                return status
            self._say(f"the run has ended with status {status}; it is started again")
            self.start()
        raise AssertionError("lives do not end by themselves")

    def _lives(self) -> Iterator[list[str]]:
        """What all hosts say, each time that all have ended; starts what is not there and outlives lost VMs.

        How a run ended that was over before the first look says nothing of this one.
        """
        failed, begun = 0, False
        while True:
            try:
                self.until_ready()
                found = self.statuses()
                failed = 0
                if "none" in found or not (begun or "running" in found):
                    if "running" in found:  # on some hosts only: a start that failed half-way
                        self.stop(_STOP_SECONDS)
                    self.deploy()
                    self.start()
                    begun = True
                elif "running" in found:
                    begun = True
                    time.sleep(self._seconds)
                else:
                    yield found
            except GcloudError as error:
                failed += 1
                if failed > _PATIENCE:
                    raise
                self._say(f"cannot be told now: {str(error).splitlines()[-1]}")
                time.sleep(self._seconds)


def _statuses(printed: list[str]) -> list[str]:
    return re.findall(r"^status: (none|running|ended \d+)\s*$", "\n".join(printed), re.MULTILINE)


def _worst(found: list[str]) -> int:
    """The status that decides: of wrong input, else of having been told to stop, else any that is not 0."""
    statuses = {int(text.removeprefix("ended ")) for text in found}
    for decisive in (WRONG, STOPPED):
        if decisive in statuses:
            return decisive
    return max(statuses)
