"""Queued resources and TPU VMs on this machine: states as a test says, hosts that are directories, commands that really run."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess

from spct_jax.launching.queued_resources import Answer

UV = """#!/usr/bin/env bash
# `uv venv` makes a Python that does what the test says; `uv pip install` has nothing to do.
if [[ $1 == venv ]]; then
  mkdir -p .venv/bin
  cp "$HOME/../python" .venv/bin/python
fi
"""


class FakeCloud:
    """Stands in for `gcloud`; `calls` are the command lines that it got."""

    def __init__(self, directory: pathlib.Path, hosts: int, python: str, states=("ACTIVE",)):
        """A cloud below a directory.

        Args:
          directory: where hosts' home directories are.
          hosts: of each slice.
          python: a bash script, what `python -m spct_jax.train ..` does on a host.
          states: what `describe` says one after another, the last one for ever.
        """
        self.calls, self.states, self.nodes_are, self.refuse = [], list(states), {}, 0
        self._directory, self._hosts, self._exists = directory, hosts, False
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "bin").mkdir()
        for path, text in ((directory / "bin" / "uv", UV), (directory / "python", f"#!/usr/bin/env bash\n{python}\n")):
            path.write_text(text)
            path.chmod(0o755)

    def homes(self, node):
        """The home directories of a slice's hosts."""
        return [self._directory / f"{node}.{index}" for index in range(self._hosts)]

    def __call__(self, command):
        """What `gcloud` would answer."""
        self.calls.append(list(command))
        if self.refuse:
            self.refuse -= 1
            return Answer(1, "", "ERROR: the network is away")
        words = [word for word in command[1:] if word != "alpha"]
        kind, verb, name = words[2], words[3], words[4]
        if kind == "queued-resources":
            return self._request(verb)
        if verb == "describe":
            return Answer(0, self.nodes_are.get(name, "READY") + "\n")
        return self._copy(words) if verb == "scp" else self._ssh(name, command)

    def _request(self, verb):
        if verb == "create":
            if self._exists:
                return Answer(1, "", "ERROR: ALREADY_EXISTS")
            self._exists = True
            return Answer(0)
        if not self._exists:
            return Answer(1, "", "ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource was not found")
        if verb == "delete":
            self._exists, self.nodes_are = False, {}
            self.lose()
            return Answer(0)
        return Answer(0, (self.states.pop(0) if len(self.states) > 1 else self.states[0]) + "\n")

    def lose(self):
        """All hosts end at once, with all that they have."""
        for home in self._directory.glob("*.[0-9]"):
            for pid in (home / ".spct_jax").glob("pid"):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(os.getsid(int(pid.read_text().split()[1])), signal.SIGKILL)
            shutil.rmtree(home)

    def _copy(self, words):
        node, _, target = words[5].partition(":")
        for home in self.homes(node):
            home.mkdir(exist_ok=True)
            shutil.copy(words[4], home / target)
        return Answer(0)

    def _ssh(self, node, command):
        (script,) = [word.removeprefix("--command=") for word in command if word.startswith("--command=")]
        (worker,) = re.findall(r"--worker=(\w+)", " ".join(command))
        out, err, status = "", "", 0
        for home in self.homes(node) if worker == "all" else [self.homes(node)[int(worker)]]:
            home.mkdir(exist_ok=True)
            path = f"{self._directory / 'bin'}:/usr/bin:/bin"
            environment = {"HOME": str(home), "PATH": path}
            done = subprocess.run(["bash", "-c", script], cwd=home, env=environment, capture_output=True, text=True, timeout=60)
            out, err, status = out + done.stdout, err + done.stderr, status or done.returncode
        return Answer(status, out, err)
