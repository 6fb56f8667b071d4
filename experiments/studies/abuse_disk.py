r"""Training on a disk that is full, for a while, on purpose: it must neither hang nor lose what it has.

    python experiments/studies/abuse_disk.py --output=docs/results/abuse_disk.md

Needs the right to mount: each run has a file system of 64 MB in memory for itself. Two things are tried, each against an
undisturbed run of the same miniature of the tiny experiment:

- The disk is full when a checkpoint is to be written: the command must end by itself, with one line and exit status 2, and once
  there is room the same command must end with bitwise the parameters of the undisturbed run.
- The disk is full between two checkpoints, when only metrics are written: the run must go on, say it once, and end
  bitwise the same.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import time

from absl import flags
from kill_test import digests

from spct_jax import cli, config, sharding
from spct_jax.errors import InputError
from spct_jax.storage import files

PATIENCE = 300
"""Seconds after which a command is said to hang."""
MINIATURE = {"toy.train": 48, "toy.test": 24, "toy.development": 16, "toy.demonstrations": 64, "toy.general": 16}

FLAGS = flags.FlagValues()
OUTPUT = flags.DEFINE_string("output", "abuse_disk.md", "Where the result is written.", flag_values=FLAGS)


def command(workdir: pathlib.Path, steps: int, every: int) -> list[str]:
    """The cold start of the miniature."""
    fields = [f"--config.data.{field}={value}" for field, value in MINIATURE.items()]
    fields += [f"--config.sft.steps={steps}", "--config.sft.batch_size=8", "--config.stages=('sft',)"]
    return [sys.executable, "-m", "spct_jax.train", f"--workdir={workdir}", *fields, f"--config.checkpoint.every_steps={every}"]


class Disk:
    """A file system of its own."""

    def __init__(self, directory: pathlib.Path):
        directory.mkdir()
        self.directory, self.ballast = directory, directory / "ballast"

    def __enter__(self):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", self.directory], capture_output=True, text=True
        )
        if done.returncode:
            raise InputError(f"{self.directory}: cannot be mounted ({done.stderr.strip()})")
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", self.directory], check=True)

    def fill(self) -> None:
        """Leaves no byte."""
        with open(self.ballast, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def free(self) -> None:
        """Gives all of it back."""
        self.ballast.unlink()


def step_of(log: pathlib.Path) -> int:
    """The last step in a progress bar."""
    found = re.findall(r"sft:.*?\| (\d+)/\d+ \[", log.read_text(errors="replace"))
    return int(found[-1]) if found else 0


def lines_of(log: pathlib.Path) -> list[str]:
    """What a command said, without progress bars."""
    said = re.split(r"[\r\n]+", log.read_text(errors="replace"))
    return [re.sub(r"^sft:.*?\]", "", line).strip() for line in said if re.sub(r"^sft:.*?\]", "", line).strip()]


def run(disk: Disk, log: pathlib.Path, steps: int, every: int, fill_at: int, free_at: int) -> tuple[str, float]:
    """Runs training, filling and freeing the disk at these steps; (exit status or 'hung', seconds after it was filled)."""
    with (
        open(log, "wb") as file,
        subprocess.Popen(command(disk.directory / "run", steps, every), stdout=file, stderr=file) as process,
    ):
        filled = 0.0
        while process.poll() is None:
            if not filled and step_of(log) >= fill_at:
                disk.fill()
                filled = time.monotonic()
            if filled and disk.ballast.exists() and step_of(log) >= free_at:
                disk.free()
            if filled and time.monotonic() - filled > PATIENCE:
                process.kill()
                return "hung", time.monotonic() - filled
            time.sleep(0.005)
    return str(process.returncode), time.monotonic() - filled if filled else 0.0


def attempt(root: pathlib.Path, name: str, steps: int, every: int, fill_at: int, free_at: int) -> tuple[list[str], bool]:
    """One trial; (what happened, whether it is as it must be)."""
    log = root / f"{name}.log"
    subprocess.run(command(root / f"{name} calm", steps, every), check=True, capture_output=True)
    with Disk(root / name) as disk:
        status, seconds = run(disk, log, steps, every, fill_at, free_at)
        said = lines_of(log)
        told = [f"- ended with status {status} {seconds:.1f} s after the disk was full at step {fill_at}; it said:", ""]
        told += [f"      {line.replace(str(root), '')}" for line in said] + [""]
        right = status != "hung" and not any("Traceback" in line for line in said)
        if disk.ballast.exists():
            disk.free()
            again = subprocess.run(
                command(disk.directory / "run", steps, every), capture_output=True, text=True, timeout=PATIENCE
            )
            told.append(f"- with room again, the same command ended with status {again.returncode}")
            right &= status == "2" and again.returncode == 0 and sum("error:" in line for line in said) == 1
        else:
            right &= status == "0" and 1 <= sum("goes on without it" in line for line in said) <= 2
        same = digests(disk.directory / "run") == digests(root / f"{name} calm")
        told.append(f"- parameters bitwise those of the undisturbed run: {'yes' if same else 'NO'}")
    return told, right and same


def main(_) -> None:
    """Tries both and reports."""
    sharding.use_devices(config.MeshConfig())
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        checkpoint, well = attempt(root, "checkpoint", steps=80, every=20, fill_at=25, free_at=1000)
        metrics, also_well = attempt(root, "metrics", steps=300, every=1000, fill_at=20, free_at=250)
    lines = [
        "# A full disk", "", "Command: `python experiments/studies/abuse_disk.py`.", "",
        "## At a checkpoint", "", *checkpoint, "", "## Between checkpoints", "", *metrics,
    ]  # fmt: skip
    files.write(OUTPUT.value, "\n".join(lines) + "\n")
    print("\n".join(lines))
    if not (well and also_well):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main, FLAGS)
