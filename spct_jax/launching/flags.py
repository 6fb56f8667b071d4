"""The flags that every launcher has, and the run that they describe."""

import copy
import importlib

from absl import flags

from spct_jax import errors
from spct_jax.config import Config, validate
from spct_jax.errors import InputError
from spct_jax.launching import run as run_lib
from spct_jax.launching.run import Run
from spct_jax.runtime import slices
from spct_jax.storage import paths

flags.disclaim_key_flags()  # those defined here belong to the command, so that its --help shows them


def split(argv: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """The launcher's own command line, and what stands behind `--`, which is for the program."""
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], tuple(argv[at + 1 :])


def check_arguments(program: str, arguments: tuple[str, ...]) -> flags.FlagValues:
    """A program's flags; InputError where it has no such flag, or a flag no such value. No file that they name is looked at."""
    module = importlib.import_module(f"spct_jax.{program}")
    own = copy.deepcopy(module.FLAGS)
    try:
        _, *positional = own([program, *arguments])
        if positional:
            raise InputError(f"unexpected argument {positional[0]!r}")
        if program != "train":  # of its experiment, nothing stands behind --
            module.check(own)
    except (flags.Error, InputError) as error:
        raise InputError(f"--program={program}: {errors.one_line(error)}") from None
    return own


class RunFlags:
    """What is to run, on which slices."""

    def __init__(self, values: flags.FlagValues):
        """Defines the flags in a command's own `values`."""
        own = {"flag_values": values}
        self._program = flags.DEFINE_enum("program", "train", run_lib.PROGRAMS, "Command of the package.", **own)
        self._topology = flags.DEFINE_string("topology", None, "Slice, such as v5p:4x4x4.", required=True, **own)
        self._slices = flags.DEFINE_integer("slices", 1, "How many slices.", lower_bound=1, upper_bound=256, **own)
        self._name = flags.DEFINE_string("name", "", "Of the run; default: from the experiment's file or --output.", **own)
        self._bucket = flags.DEFINE_string(
            "bucket", "", "gs://BUCKET[/PATH]: the workdir is there, under the run's name, and so are compiled programs.", **own
        )
        self._workdir = flags.DEFINE_string(
            "workdir",
            "",
            "Of training, in place of one in the bucket; all hosts must see it. Of several runs, the parent.",
            **own,
        )
        self._libtpu = flags.DEFINE_string("libtpu_args", "", "More flags of the TPU compiler and runtime.", **own)
        self._xla = flags.DEFINE_string("xla_flags", "", "XLA_FLAGS of every host.", **own)
        self._env = flags.DEFINE_multi_string("env", [], "NAME=VALUE: an environment variable more.", **own)
        self._dry_run = flags.DEFINE_bool(
            "dry_run", False, "Only print what would be sent; what is not given stands there in capitals.", **own
        )

    @property
    def dry_run(self) -> bool:
        """Whether nothing is to be sent."""
        return self._dry_run.value

    def needed(self, value: str, stand_in: str, missing: str) -> str:
        """The value of a flag; without one what stands for it in a dry run, or else an InputError that says what is missing."""
        if not value and not self.dry_run:
            raise InputError(missing)
        return value or stand_in

    def run(self, config: Config, argv: list[str], behind: tuple[str, ...], suffix: str = "") -> Run:
        """The run.

        Args:
          config: the experiment, with changed fields.
          argv: the launcher's own command line.
          behind: arguments for the program.
          suffix: at the end of the run's name, where there are several.

        Raises:
          InputError: the experiment or a flag is wrong.
        """
        training, bucket = self._program.value == "train", self._checked_bucket()
        if training and not self._workdir.value:
            missing = "training needs --bucket=gs://BUCKET, or --workdir=DIR that all hosts see"
            bucket = self.needed(bucket, "gs://BUCKET", missing)
        if training:
            name, arguments = self._training(config, argv, behind, bucket, suffix)
        else:
            name, arguments = self._judging(argv, behind, suffix)
        found = {"JAX_COMPILATION_CACHE_DIR": f"{bucket}/compiled"} if bucket else {}
        found |= {"XLA_FLAGS": self._xla.value} if self._xla.value else {}
        return Run(
            name=name,
            program=self._program.value,
            arguments=arguments,
            slice=slices.parse(self._topology.value),
            slices=self._slices.value,
            libtpu_arguments=self._libtpu.value,
            variables=(*found.items(), *run_lib.variables(self._env.value)),
        )

    def _checked_bucket(self) -> str:
        """The bucket, empty without one; InputError where it or the workdir is no place that can be written to."""
        bucket = self._bucket.value.rstrip("/")
        if bucket and not bucket.startswith("gs://"):
            raise InputError(f"--bucket={bucket}: expected gs://BUCKET or gs://BUCKET/PATH")
        for flag in (self._bucket, self._workdir):
            if flag.value and not self.dry_run:  # what is only printed may be gs://BUCKET
                paths.check(flag.value, f"--{flag.name}")
        return bucket

    def _named(self, about: str, suffix: str) -> str:
        """The run's name, which without one given comes from what it is about."""
        return (self._name.value or run_lib.default_name(self._program.value, about)) + suffix

    def _training(
        self, config: Config, argv: list[str], behind: tuple[str, ...], bucket: str, suffix: str
    ) -> tuple[str, tuple[str, ...]]:
        """(Name, arguments of the program) of a training run, whose experiment must be right for the slices."""
        count = self._slices.value
        validate(config)
        run_lib.check_files(config)
        run_lib.check_devices(config, slices.parse(self._topology.value), count)
        named = [a.partition("=")[2] for a in argv if a.startswith("--config=")]
        name = self._named(named[-1] if named else "tiny", suffix)
        parent = self._workdir.value
        workdir = parent + f"/{name}" * bool(suffix) if parent else f"{bucket}/{name}"
        if field := next((a for a in behind if a.lstrip("-").startswith(("config", "noconfig"))), None):
            raise InputError(f"{field}: fields of the experiment stand before --, where they are checked")
        check_arguments("train", (f"--workdir={workdir}", *behind))
        return name, (*run_lib.train_arguments(argv, config, workdir, count), *behind)

    def _judging(self, argv: list[str], behind: tuple[str, ...], suffix: str) -> tuple[str, tuple[str, ...]]:
        """(Name, arguments of the program) of a run that is no training, and is named after what it writes."""
        program = self._program.value
        if any(a.startswith("--config") for a in argv):
            raise InputError(f"--config: {program} has no experiment; its own flags stand behind --")
        if not behind:
            raise InputError(f"--program={program}: its flags stand behind --, such as -- --checkpoint=gs://BUCKET/MODEL")
        return self._named(check_arguments(program, behind)["output"].value, suffix), behind
