"""What a launcher starts: one command of the package on every host of some slices.

Every launcher starts `bash launch/entrypoint.sh PROGRAM ARGUMENT..` in a copy of the repository and sets the same environment.
"""

import dataclasses
import pathlib
import re

from spct_jax.config import Config, MeshConfig, check_batches
from spct_jax.errors import InputError
from spct_jax.grm import rewards
from spct_jax.grm.template import template_names
from spct_jax.runtime.hardware import CHIPS
from spct_jax.runtime.slices import Slice
from spct_jax.sharding.strategies import batch_shards
from spct_jax.storage import paths

PROGRAMS = ("train", "judge", "evaluate")
"""Commands that can be launched."""
ENTRYPOINT = "launch/entrypoint.sh"
ROOT = pathlib.Path(__file__).parents[2]
"""The repository, which is copied to where it runs."""
PROFILE_PORT = 9012
"""Where a training run serves profiles."""
LONGEST = 63
"""Characters of a name by RFC 1123."""

_TPU_ENVIRONMENT = {
    "JAX_PLATFORMS": "tpu,cpu",
    "TPU_STDERR_LOG_LEVEL": "0",
    "TPU_MIN_LOG_LEVEL": "0",
}
_BETWEEN_SLICES = (
    "--xla_tpu_enable_data_parallel_all_reduce_opt=true",
    "--xla_tpu_data_parallel_opt_different_sized_ops=true",
)
"""Sums of gradients between slices overlap with arithmetic. For one slice, programs are compiled as they are planned."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One command on every host of one or more equal slices."""

    name: str
    """By RFC 1123, see `check_name`."""
    program: str
    """One of `PROGRAMS`."""
    arguments: tuple[str, ...]
    """The program's own; paths in them are relative to the repository."""
    slice: Slice
    slices: int = 1
    libtpu_arguments: str = ""
    """More flags of the TPU compiler and runtime, with spaces between."""
    variables: tuple[tuple[str, str], ...] = ()
    """More environment variables; these win."""

    @property
    def command(self) -> list[str]:
        """What every host runs, in the copy of the repository."""
        return ["bash", ENTRYPOINT, self.program, *self.arguments]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every host sets for it."""
        libtpu = " ".join((*_BETWEEN_SLICES * (self.slices > 1), *self.libtpu_arguments.split()))
        return _TPU_ENVIRONMENT | ({"LIBTPU_INIT_ARGS": libtpu} if libtpu else {}) | dict(self.variables)


def check_name(name: str, longest: int = LONGEST, flag: str = "--name") -> str:
    """The name, if it can name a resource (RFC 1123): small letters, digits and hyphens, a letter or digit at both ends.

    Raises:
      InputError: it cannot.
    """
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > longest:
        raise InputError(
            f"{flag}={name}: not a name of small letters, digits and hyphens that begins with a letter, ends with a letter or "
            f"digit and has at most {longest} characters"
        )
    return name


def default_name(program: str, about: str) -> str:
    """A name from the experiment's file, or from what is written: `experiments/gemma2_27b.py:meta` gives
    `gemma2-27b-meta-train`, `gs://ours/verdicts/hh.jsonl` gives `hh-judge`.
    """
    path, _, argument = pathlib.PurePosixPath(about).name.partition(":")
    parts = (
        re.sub("[^a-z0-9]+", "-", part.lower()).strip("-") for part in (pathlib.PurePosixPath(path).stem, argument, program)
    )
    return "-".join(filter(None, parts))


def variables(pairs: list[str]) -> tuple[tuple[str, str], ...]:
    """Environment variables from `NAME=VALUE`.

    Raises:
      InputError: one has another form.
    """
    found = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise InputError(f"--env={pair}: expected NAME=VALUE")
        found.append((name, value))
    return tuple(found)


def train_arguments(argv: list[str], config: Config, workdir: str, slices: int) -> tuple[str, ...]:
    """The training command's arguments, from the launcher's own command line.

    `--config=FILE` and `--config.FIELD=VALUE` are passed on; the file's path becomes relative to the repository. For several
    slices, the fields of the mesh that say so are added unless they are set.

    Raises:
      InputError: the file is not in the repository, whose copy is all that hosts see, or as of `mesh_on`.
    """
    passed = [_inside(a) if a.startswith("--config=") else a for a in argv if re.match(r"--(no)?config[.=]", a)]
    mesh = mesh_on(config, slices)
    if mesh != config.mesh:
        passed += [f"--config.mesh.strategy={mesh.strategy}", f"--config.mesh.slices={mesh.slices}"]
    return (f"--workdir={workdir}", *passed, f"--profile_port={PROFILE_PORT}")


def check_files(config: Config) -> None:
    """Raises InputError where a reward or a template that an experiment names is not in the repository, where hosts run."""
    named = {f"prompt.{role}": name for role, name in vars(config.prompt).items() if name and name not in template_names()}
    if config.rl.reward:
        named["rl.reward"], _ = rewards.parts(config.rl.reward)
    for field, path in named.items():
        if paths.is_remote(path) and field != "rl.reward":
            continue
        if pathlib.PurePath(path).is_absolute() or not (ROOT / path).is_file():
            raise InputError(f"--config.{field}: {path} names no file from the repository {ROOT} on, which is what hosts see")


def mesh_on(config: Config, slices: int) -> MeshConfig:
    """The mesh of an experiment on so many slices: that of the config, or a copy of what it has on one slice for each.

    Raises:
      InputError: the experiment is laid out for another number of slices.
    """
    if config.mesh.slices not in (1, slices):
        raise InputError(f"--slices={slices}: the experiment is laid out for config.mesh.slices={config.mesh.slices}")
    more = {} if config.mesh.slices == slices else {"strategy": "multislice", "slices": slices}
    return dataclasses.replace(config.mesh, **more)


def check_devices(config: Config, slice_: Slice, count: int) -> None:
    """Raises InputError where the experiment's mesh or batches do not fit the devices of so many such slices."""
    known = CHIPS.get(slice_.chip)
    devices = count * slice_.chips * (known.devices_per_chip if known else 1)
    on = f"{count} x {slice_.chip}:{slice_.topology}" if count > 1 else f"{slice_.chip}:{slice_.topology}"
    try:
        check_batches(config, batch_shards(mesh_on(config, count), devices))
    except InputError as error:
        raise InputError(f"on {on}: {error}") from None


def _inside(argument: str) -> str:
    path, colon, rest = argument.removeprefix("--config=").partition(":")
    absolute = pathlib.Path(path).absolute().resolve()
    if not absolute.is_relative_to(ROOT):
        raise InputError(f"{argument}: not in the repository {ROOT}, so hosts would not see it")
    return f"--config={absolute.relative_to(ROOT).as_posix()}{colon}{rest}"
