"""The flags that every command with a judge has, and the judge that they describe."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from absl import flags

from spct_jax import checkpoints, field_bounds, sharding
from spct_jax.checkpoints import ModelKind
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.template import Template, load_template
from spct_jax.judging import models, principles, scalar_judge
from spct_jax.judging.judge import Judge
from spct_jax.judging.options import MODES, READS, Options
from spct_jax.judging.scalar_judge import ScalarJudge
from spct_jax.models.config import QUANTIZATIONS, missing
from spct_jax.runtime import distributed
from spct_jax.runtime.process_flags import ProcessFlags
from spct_jax.sharding.config import STRATEGIES, MeshConfig
from spct_jax.storage import files, paths

flags.disclaim_key_flags()  # those defined here belong to the command, so that its --help shows them


LATER = {"read": "sampled", "share_principles": False, "critic_checkpoint": None, "meta_template": None, "quantize": "none"}
"""Options that are named among the settings only if they have another value than this."""

AUTO = "auto"
"""Value of `--batch_size` that leaves the choice to `sampling.engine_size`."""

CHOICE_TEMPLATES = ("judge", "short_judge")
"""Those of the package's templates that ask for the number of the best response."""


class _Rows(flags.ArgumentParser, flags.ArgumentSerializer):
    """A number of rows, or `auto`, which is 0."""

    syntactic_help = "a number, or auto"

    def parse(self, argument: str | int) -> int:
        """The number."""
        if argument == AUTO:
            return 0
        if not str(argument).isdecimal() or not int(argument):
            raise ValueError(f"neither {AUTO} nor a number of rows")
        return int(argument)

    def serialize(self, value: int) -> str:
        """What `parse` reads."""
        return str(value) if value else AUTO


def _checked(options: Mapping[str, Any]) -> Options:
    """The options; InputError naming the flag that is wrong."""
    try:
        return Options(**options)
    except InputError as error:
        raise InputError(f"--{error}") from None


class JudgeFlags:
    """Which models judge, how critiques are drawn, and on which devices."""

    def __init__(self, values: flags.FlagValues):
        """Defines the flags in a command's own `values`."""
        own = {"flag_values": values}
        self.checkpoint = flags.DEFINE_string(
            "checkpoint", None, "Model directory of the judge, of this library or Hugging Face's.", **own
        )
        self.meta_checkpoint = flags.DEFINE_string("meta_checkpoint", None, "Model directory of the meta reward model.", **own)
        self.critic_checkpoint = flags.DEFINE_string(
            "critic_checkpoint", None, "Model directory of the critic, where the judge is a CLoud reward model.", **own
        )
        self.template = flags.DEFINE_string(
            "template", None, "Wording of the task, by name or file; default: the checkpoint's own.", **own
        )
        self.meta_template = flags.DEFINE_string(
            "meta_template", None, "Wording for the meta reward model, by name or file; default: its checkpoint's own.", **own
        )
        mode = "Scores of every response, or an LLM judge's choice of one, counted or weighted."
        read = "What a critique's vote is: the integers it holds, or the mean over all that could stand there."
        share = "Draw principles once for each comparison; all its other critiques go on from them."
        given = "File of principles to judge by: a text for all, or .jsonl with those of each id."
        export = "File for the principles of all verdicts, .jsonl; --principles reads it."
        prompt = "Longest prompt, in tokens; a longer one is an error. Default: 8192, or what the model has."
        rows = "Rows of prompts at a time; auto: rows and branches by the memory of the devices."
        self.batch_size = flags.DEFINE(_Rows(), "batch_size", "auto", rows, serializer=_Rows(), **own)
        self.seed = flags.DEFINE_integer("seed", 0, "Of samples and orders.", **own)
        self._mode = flags.DEFINE_enum("mode", "scores", MODES, mode, **own)
        self._sampling = (
            flags.DEFINE_float("temperature", 0.5, "Of sampling; 0, or less than 1e-5, is greedy.", **own),
            flags.DEFINE_integer("top_k", 0, "Draw from so many likeliest tokens only; 0 for all.", **own),
            flags.DEFINE_float("top_p", 1.0, "Draw from the likeliest tokens of this total probability only.", **own),
            self.seed,
            flags.DEFINE_enum("order", "balanced", ("balanced", "random"), "In which orders the responses are shown.", **own),
            self._mode,
            flags.DEFINE_enum("read", "sampled", READS, read, **own),
            flags.DEFINE_bool("share_principles", False, share, **own),
            flags.DEFINE_integer("max_new_tokens", 1024, "Longest critique, in tokens.", **own),
            flags.DEFINE_integer("max_prompt", None, prompt, **own),
            self.batch_size,
        )
        self.principles = flags.DEFINE_string("principles", None, given, **own)
        self.export_principles = flags.DEFINE_string("export_principles", None, export, **own)
        drawn_with = "Critiques are written with weights, keys and values of so many bits; int8 needs qwix."
        self._quantize = flags.DEFINE_enum("quantize", "none", QUANTIZATIONS, drawn_with, **own)
        self._cpu_devices = flags.DEFINE_integer(
            "cpu_devices", 1, "Devices to split the CPU into, where there is nothing else.", **own
        )
        self._strategy = flags.DEFINE_enum(
            "strategy",
            "data",
            [strategy for strategy in STRATEGIES if strategy != "multislice"],
            "What is split over the devices; see docs/judge.md.",
            **own,
        )
        self._tensor = flags.DEFINE_integer("tensor", 1, "Devices that share the heads of a layer.", **own)
        self._across_hosts = flags.DEFINE_bool(
            "across_hosts", False, "Split one model over the devices of all processes; default: each has its own.", **own
        )
        self._processes = ProcessFlags(values)

    def join(self) -> None:
        """Arranges the devices as the flags say, and joins the other processes; must come before JAX is first used."""
        mesh = self._mesh()
        sharding.use_devices(mesh)
        self._processes.join(mesh.heartbeat_seconds)

    def options(self, **more: Any) -> dict[str, Any]:
        """Keyword arguments of `Judge.stream`: those of the flags, and `more`, which go by the names of flags, too.

        Raises:
          InputError: naming the flag that is wrong, or a directory that is not there.
        """
        named = self._directories()
        options = {flag.name: flag.value for flag in self._sampling if flag.value is not None} | more
        checked = _checked(options)
        if self.template.value in CHOICE_TEMPLATES and checked.mode == "scores":
            raise InputError(f"--template={self.template.value} names the best response, which --mode=choice reads")
        if self.meta_template.value and not self.meta_checkpoint.value:
            raise InputError("--meta_template is for a meta reward model; give --meta_checkpoint")
        for flag in named:
            if flag.value:
                model = checkpoints.read_architecture(flag.value)
                if not self.checkpoint.value or self.draws:  # what draws nothing reads texts of whatever length it has room for
                    checked.for_model(model)
        if message := missing(self._quantize.value):
            raise InputError(f"--{self._quantize.name}={self._quantize.value} {message}")
        return options

    def check(self, values: flags.FlagValues) -> None:
        """InputError as of `options` where values of a command's flags are wrong whatever the files are; it looks at none."""
        names = {field.name for field in dataclasses.fields(Options)} & set(values)
        found = {name: values[name].value for name in names}  # lists are of more than one pass
        _checked({name: value for name, value in found.items() if value is not None and not isinstance(value, list)})

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What a verdict depends on; batch size and devices change the speed and no more than the last bits."""
        named = (self.checkpoint, self.meta_checkpoint, self.critic_checkpoint)
        where = {flag.name: flag.value and files.real_name(flag.value) for flag in named}
        where |= {flag.name: flag.value for flag in (self.template, self.meta_template, self._quantize)}
        settings = where | {name: options[name] for name in options if name not in (self.batch_size.name, "principles")}
        # Where a later option is not used, an output that was begun without it can be continued.
        return {name: value for name, value in settings.items() if LATER.get(name, ...) != value}

    @property
    def kind(self) -> ModelKind | None:
        """Which scalar reward model the judge is; None for one that writes verdicts. InputError as of `options`."""
        self._directories()
        return scalar_judge.kind_of(self.checkpoint.value)

    @property
    def draws(self) -> bool:
        """Whether the judge draws its votes; Bradley-Terry and PairRM give one, always the same. InputError as of `options`."""
        return self.kind not in (ModelKind.BTRM, ModelKind.PAIRRM)

    @property
    def chooses(self) -> bool:
        """Whether the judge names a response instead of scoring all, by its mode or by the template that it carries."""
        named = models.with_names(checkpoints.read_templates(self.checkpoint.value), self._templates())
        texts = {load_template(name).text for name in (named.template, named.choice_template)}
        return self._mode.value != "scores" or (len(texts) == 1 and load_template(named.single_template).text not in texts)

    def check_export(self, *used: str | os.PathLike) -> None:
        """InputError where the template has no principles to export, or their file is no new one that `principles.read` reads.

        `used` is what the command reads and writes besides.
        """
        flag, target = f"--{self.export_principles.name}", self.export_principles.value
        if not target.endswith(principles.BY_ID):
            raise InputError(f"{flag}={target}: the name must end in {' or '.join(principles.BY_ID)}, as --principles reads it")
        if not paths.is_remote(target) and not paths.parse(target, flag).parent.is_dir():
            raise InputError(f"{flag}={target}: not in a directory")
        files.check_unused(target, [path for path in (*used, self.principles.value) if path], flag)
        template = self.read_template()
        if not template.principles:
            raise InputError(f"--{self.export_principles.name}: template {template.name!r} has no part for principles")

    def load(self) -> Judge | ScalarJudge:
        """The judge on its devices."""
        directories = self.checkpoint.value, self.meta_checkpoint.value, self.critic_checkpoint.value
        return scalar_judge.load(*directories, mesh=self._layout(), prompt=self._templates(), quantize=self._quantize.value)

    def read_template(self) -> Template:
        """The template that comparisons are judged with; no parameters are loaded."""
        carried = checkpoints.read_templates(self.checkpoint.value)
        named = models.with_names(carried, self._templates())
        return load_template(named.template if self._mode.value == "scores" else named.choice_template)

    def _templates(self) -> PromptConfig:
        policys, metas = self.template.value or "", self.meta_template.value or ""
        return PromptConfig(template=policys, single_template=policys, meta_template=metas, choice_template=policys)

    def _directories(self) -> tuple[flags.FlagHolder, ...]:
        """The flags that name models; InputError where one names a directory that is not there."""
        named = (self.checkpoint, self.meta_checkpoint, self.critic_checkpoint)
        for flag in named:
            if flag.value and not paths.of(flag.value).is_dir():
                raise InputError(f"--{flag.name}={flag.value}: no such directory")
        return named

    def _mesh(self) -> MeshConfig:
        mesh = MeshConfig(cpu_devices=self._cpu_devices.value, strategy=self._strategy.value, tensor=self._tensor.value)
        field_bounds.check(mesh, "--")
        return mesh

    def _layout(self) -> sharding.Layout:
        """The devices as the flags arrange them: this process's own, or those of all."""
        return sharding.make_layout(self._mesh(), distributed.devices(local=not self._across_hosts.value))
