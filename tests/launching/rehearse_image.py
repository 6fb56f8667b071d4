"""Does what launch/Dockerfile says without a builder of images: its steps in a virtual environment and an empty directory.

    python tests/launching/rehearse_image.py DIRECTORY [-- ARGUMENTS in place of its CMD]

FROM becomes a virtual environment of this Python, WORKDIR a directory below DIRECTORY; COPY, ENV and RUN are done as written,
except that no user is made, and the command runs at the end as ENTRYPOINT and CMD say. What this cannot show: that the base
image exists and has what the steps need beyond bash, coreutils and Python, and how large the image is.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def instructions(text):
    """(NAME, rest) of every instruction, comments left out and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def copy(sources, target):
    """COPY: files into a directory, or the contents of a directory."""
    for source in sources:
        path = ROOT / source
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def build(directory, text):
    """Does all steps; returns (directory where the command runs, its environment, ENTRYPOINT, CMD)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JAX", "XLA"))}
    entry = command = ()
    work = directory
    for name, rest in instructions(text):
        if name == "FROM":
            subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
            environment["PATH"] = f"{directory / 'venv' / 'bin'}:{environment['PATH']}"
            environment["VIRTUAL_ENV"] = str(directory / "venv")
        elif name == "ENV":
            environment |= dict(pair.split("=", 1) for pair in rest.split())
        elif name == "WORKDIR":
            work = directory / rest.lstrip("/")
            work.mkdir(parents=True)
        elif name == "COPY":
            *sources, target = rest.split()
            copy(sources, work / target)
        elif name == "RUN" and rest.startswith("useradd"):
            print(f"left out: {rest}", file=sys.stderr)
        elif name == "RUN":
            subprocess.run(["sh", "-c", rest], cwd=work, env=environment, check=True)
        elif name == "ENTRYPOINT":
            entry = json.loads(rest)
        elif name == "CMD":
            command = json.loads(rest)
        elif name != "USER":
            raise ValueError(f"{name}: not known here")
    return work, environment, entry, command


def main():
    """Builds, then runs; the exit status is the command's."""
    directory = pathlib.Path(sys.argv[1]).absolute()
    work, environment, entry, command = build(directory, (ROOT / "launch" / "Dockerfile").read_text())
    (home := directory / "home" / "spct").mkdir(parents=True)
    behind = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else command
    arguments = [part.replace("/home/spct", str(home)) for part in behind]
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"built: {size / 2**30:.2f} GiB beside the base image", file=sys.stderr)
    return subprocess.run([*entry, *arguments], cwd=work, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
