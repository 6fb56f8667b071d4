"""A run: its configuration, data, tokenizer and directory, and where each stage finds what earlier ones left."""

import dataclasses
import pathlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from spct_jax import checkpoints, distributed, files, models, sharding
from spct_jax.checkpoints import ModelKind
from spct_jax.config import POLICIES, Config
from spct_jax.data import batches, index
from spct_jax.data.batches import Example, Groups
from spct_jax.data.comparison import Comparison
from spct_jax.data.index import Records
from spct_jax.data.jsonl import ReadReport
from spct_jax.data.sources import DECIDED, DEMONSTRATIONS, Demonstration, Kind
from spct_jax.data.tokenizer import Tokenizer, train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter, Rollout
from spct_jax.grm.template import load_template
from spct_jax.models.config import ModelConfig
from spct_jax.sharding import Layout
from spct_jax.toy import demonstrator, world


class LostStepsError(Exception):
    """The last steps of a finished stage are damaged; an earlier one is intact."""

    def __init__(self, stage: str, step: int):
        super().__init__(f"{stage}: the newest intact checkpoint is {step}")
        self.stage = stage


@dataclasses.dataclass(frozen=True)
class Dataset:
    """All records of a run."""

    train: Records[Comparison]
    development: Records[Comparison]
    test: Records[Comparison]
    demonstrations: Records[Demonstration]
    general: Records[Demonstration]
    reports: dict[str, ReadReport]
    """Per file or split: records read, used, skipped and why."""
    responses: np.ndarray | None = None
    """How many each training comparison has, once misfits are dropped."""


def kind_of(stage: str) -> ModelKind:
    """What a stage trains."""
    return ModelKind.META_RM if stage == "meta_rm" else ModelKind.POLICY


@dataclasses.dataclass(frozen=True)
class Limits:
    """Shapes and stop set of every program of a run."""

    max_prompt: int
    max_completion: int
    stop_ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Run:
    """What every stage is given."""

    config: Config
    workdir: pathlib.Path
    dataset: Dataset
    prompter: Prompter
    model: ModelConfig
    layout: Layout
    rollout_layout: Layout

    @property
    def limits(self) -> Limits:
        """Shapes of every program."""
        data = self.config.data
        return Limits(data.max_prompt, data.max_completion, self.prompter.tokenizer.stop_ids)

    def key(self, stage: str, step: int = 0) -> jax.Array:
        """The key of a step of a stage."""
        stage_key = jax.random.fold_in(jax.random.key(self.config.seed), zlib.crc32(stage.encode()))
        return jax.random.fold_in(stage_key, step)

    def initial_params(self) -> Any:
        """Float32 parameters that the first training stage starts from."""
        if self.config.init_checkpoint:
            model = checkpoints.load(self.config.init_checkpoint, dtype="float32", shardings=self.layout.params)
            self._check_initial(model.digest)
            return model.params

        def init(data):
            return models.init(self.model, jax.random.wrap_key_data(data))

        data = np.asarray(jax.random.key_data(self.key("init")))
        return jax.jit(init, out_shardings=self.layout.params(jax.eval_shape(init, data)))(data)

    def _check_initial(self, digest: str) -> None:
        """InputError where the initial checkpoint is not the one that the run has loaded before."""
        path = self.workdir / "data" / "init_checkpoint.json"
        if distributed.agree(path.exists()) and files.read_json(path).get("digest") != digest:
            raise InputError(
                f"config.init_checkpoint: {self.config.init_checkpoint} is not the model that this run began with; "
                "choose another --workdir"
            )
        files.write_json(path, {"digest": digest})

    def params_of(self, stage: str, dtype: str | None = None) -> Any:
        """Parameters a finished stage left, where updates want them, by default in the stored dtype.

        Raises:
          LostStepsError: the last checkpoint is damaged, an earlier one is intact.
        """
        model = checkpoints.load(self.workdir / stage, kind=kind_of(stage), dtype=dtype, shardings=self.layout.params)
        if model.step < getattr(self.config, stage).steps:
            raise LostStepsError(stage, model.step)
        return model.params

    def policy_before(self, stage: str, matrices: str = "float32") -> Any:
        """The policy's parameters where a stage begins: those of the last stage before it that trains one, or initial ones.

        They are float32 but for the large ones, whose dtype is `matrices`: norms keep what the policy has, so that the
        reference of a policy that computes in `matrices` is that policy to the bit.
        """
        earlier = [s for s in self.config.stages[: self.config.stages.index(stage)] if s in POLICIES]
        params = self.params_of(earlier[-1], "float32") if earlier else self.initial_params()
        return params if matrices == "float32" else sharding.cast_params(params, matrices, self.layout)

    def to_draw_with(self, params: Any) -> Any:
        """Parameters that completions are drawn with or read by, from where updates have them."""
        return sharding.cast_params(params, self.model.dtype, self.rollout_layout)

    def describe(self, stage: str) -> None:
        """Makes the stage's directory a model directory."""
        if distributed.is_first():
            tokenizer = self.prompter.tokenizer
            checkpoints.describe(self.workdir / stage, self.model, tokenizer, kind_of(stage), self.config.prompt)

    @property
    def prompted(self) -> dict[str, bool]:
        """Which prompts a comparison of several responses has beside the plain one: hinted ones, those of the meta RM."""
        hinted = self.config.rejection.hinted and "rejection" in self.config.stages
        return {"hinted": hinted, "meta": "meta_rm" in self.config.stages}

    def fits(self, comparison: Comparison) -> bool:
        """Whether each of the comparison's prompts, in whatever order of the responses, is within the limit."""
        limit, prompted = self.config.data.max_prompt, self.prompted
        prompted["hinted"] &= comparison.n > 1
        return self.prompter.longest(comparison, **prompted, limit=limit) <= limit

    def example(self, number: int, rollout: Rollout, completions: Sequence[Sequence[int]] | None = None) -> Example:
        """Completions of a training comparison, all that were drawn or those given, behind the prompt they were drawn for.

        Its `tokens` raises InputError where the comparison is no longer the one that was drawn for.
        """
        completions = rollout.completions if completions is None else completions

        def tokens():
            comparison = self.dataset.train[number]
            if comparison.id != rollout.id:
                raise InputError(f"{self.workdir}: drawn for {rollout.id!r}, but data.train now has {comparison.id!r} there")
            return self.prompter.encode(comparison, rollout.order), completions

        return Example(rollout.id, len(completions), tokens)

    def pack(self, examples: Sequence[Example], group_size: int, rows: int = 0) -> Groups:
        """Packs groups to the run's shapes, on the devices of all processes; each makes the tokens of its own rows only.

        Args:
          examples: the prompts.
          group_size: completions per prompt.
          rows: prompts that there are to be, the last ones without a completion where there are fewer examples.
        """
        rows = rows or len(examples)
        tokens: list = [((0,), ())] * rows
        for row in self.layout.local_rows(rows):
            if row < len(examples):
                tokens[row] = examples[row].tokens()
        groups = batches.pack(
            *zip(*tokens, strict=True),
            max_prompt=self.limits.max_prompt,
            max_completion=self.limits.max_completion,
            group_size=group_size,
        )
        return self.layout.split(groups)

    def survey(self, name: str, measure: Callable[[Any], int]) -> np.ndarray:
        """Int32 of every record of a part of the dataset; `measure` is a function of the record, its prompts and the limits."""
        data = self.config.data
        stamp = f"{self.prompter.digest} {data.max_prompt} {data.max_completion} {self.prompted} over all orders"
        return index.survey(getattr(self.dataset, name), measure, self.workdir / "data" / f"{name}.survey", stamp)

    def demonstrations(self, name: str) -> tuple[Records[Example], np.ndarray, dict[str, int]]:
        """Those of a part of the dataset that fit: (examples, Int32 of how many completions each has, others by reason)."""
        data, tokenizer, shown = self.config.data, self.prompter.tokenizer, getattr(self.dataset, name)
        reasons = {"prompt too long": 0, "completion too long": -1}

        def tokens(demonstration):
            return tokenizer.encode_turns(demonstration.turns), [*map(tokenizer.encode_completion, demonstration.completions)]

        def measure(demonstration):
            # What is too long by its characters alone is not tokenised.
            if tokenizer.min_tokens(sum(len(turn.content.strip()) for turn in demonstration.turns)) > data.max_prompt:
                return reasons["prompt too long"]
            if tokenizer.min_tokens(max(map(len, demonstration.completions))) > data.max_completion:
                return reasons["completion too long"]
            prompt, completions = tokens(demonstration)
            if len(prompt) > data.max_prompt:
                return reasons["prompt too long"]
            return len(completions) if max(map(len, completions)) <= data.max_completion else reasons["completion too long"]

        sizes = self.survey(name, measure)
        examples = Records(lambda i: Example(f"{name} {i}", int(sizes[i]), lambda: tokens(shown[i])), np.flatnonzero(sizes > 0))
        skipped = {reason: int((sizes == code).sum()) for reason, code in reasons.items() if (sizes == code).any()}
        return examples, sizes[sizes > 0], skipped


def load_dataset(config: Config, directory: pathlib.Path) -> Dataset:
    """Finds the records of the files the config names; the toy world stands in for what it does not.

    `directory` keeps where they lie.

    Raises:
      InputError: a file is missing or empty, or holds a bad line while `data.on_bad` is `fatal`.
    """
    data, reports = config.data, {}
    if not data.train:
        return _toy_dataset(config)

    def find(name: str, kind: Kind) -> Records:
        path = getattr(data, name)
        if not path:
            return Records.of([])
        records, reports[path] = index.index_file(path, kind, on_bad=data.on_bad, directory=directory, name=name)
        return records

    comparisons = {name: find(name, DECIDED) for name in world.SPLITS}
    demonstrations = {name: find(name, DEMONSTRATIONS) for name in ("demonstrations", "general")}
    return Dataset(**comparisons, **demonstrations, reports=reports)


def _toy_dataset(config: Config) -> Dataset:
    toy, names = config.data.toy, config.prompt
    template, single = load_template(names.template), load_template(names.single_template)
    splits = {s: [p.comparison for p in world.problems(s, getattr(toy, s), toy)] for s in world.SPLITS}
    return Dataset(
        **{name: Records.of(split, repr(toy)) for name, split in splits.items()},
        demonstrations=Records.of(demonstrator.demonstrations(toy, template, single), repr(toy)),
        general=Records.of(demonstrator.general_instructions(toy), repr(toy)),
        reports={name: ReadReport(len(split), len(split)) for name, split in splits.items()},
    )


def drop_misfits(run: Run) -> Run:
    """The run without comparisons whose prompt is too long, which are counted in `dataset.reports`.

    Raises:
      InputError: there is one and `data.on_bad` is `fatal`.
    """
    data, kept = run.config.data, {}
    reports = dict(run.dataset.reports)
    for split in world.SPLITS:
        comparisons, name = getattr(run.dataset, split), getattr(data, split) or split
        responses = run.survey(split, lambda c: c.n if run.fits(c) else 0)
        fits = responses > 0
        kept[split] = comparisons[np.flatnonzero(fits)]
        if split == "train":
            kept["responses"] = responses[fits]
        if fits.all():
            continue
        if data.on_bad == "fatal" or not fits.any():
            first = int(np.argmin(fits))
            raise InputError(
                f"{comparisons.where(first) or name}: prompt of {comparisons[first].id!r} is longer than data.max_prompt"
                f" ({data.max_prompt} tokens)"
            )
        reports[name] = dataclasses.replace(reports[name], used=len(kept[split]), skipped=dict(reports[name].skipped))
        reports[name].skipped["prompt too long"] = len(comparisons) - len(kept[split])
    return dataclasses.replace(run, dataset=dataclasses.replace(run.dataset, **kept, reports=reports))


def name_templates(config: Config) -> Config:
    """The config with every template named: by itself, else that of the initial checkpoint, else the short one.

    Raises:
      InputError: the initial checkpoint carries some of its templates only.
    """
    carried = checkpoints.read_templates(config.init_checkpoint) if config.init_checkpoint else None
    named = {role: name for role, name in vars(config.prompt).items() if name}
    return dataclasses.replace(config, prompt=dataclasses.replace(carried or PromptConfig(), **named))


def architecture(config: Config, tokenizer: Tokenizer) -> ModelConfig:
    """The model of a run: that of the initial checkpoint, or the config's with as many rows as the tokenizer has pieces.

    Raises:
      InputError: the tokenizer has more pieces than the initial checkpoint has rows.
    """
    if not config.init_checkpoint:
        return dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size)
    found = checkpoints.read_architecture(config.init_checkpoint)
    return dataclasses.replace(
        found,
        num_tokens=tokenizer.vocab_size if tokenizer.vocab_size != found.vocab_size else 0,
        dtype=config.model.dtype,
        remat=config.model.remat,
        time_chunk=config.model.time_chunk,
        attention=config.model.attention,
    )


def load_tokenizer(config: Config, dataset: Dataset, path: pathlib.Path) -> Tokenizer:
    """The tokenizer the config names, that of the initial checkpoint, or one trained on the demonstrations.

    The last is kept at `path`, so that it is trained once.
    """
    if config.data.tokenizer:
        return Tokenizer.load(config.data.tokenizer)
    if config.init_checkpoint:
        return checkpoints.read_tokenizer(config.init_checkpoint)
    if not path.exists() and distributed.is_first():
        shown = [*dataset.demonstrations, *dataset.general]
        texts = [turn.content for d in shown for turn in d.turns] + [c for d in shown for c in d.completions]
        trained = train_tokenizer(texts, vocab_size=config.data.vocab_size)
        trained.save(path)
    distributed.barrier("tokenizer")
    return Tokenizer.load(path)
