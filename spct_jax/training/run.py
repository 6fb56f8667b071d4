"""A run: its configuration, data, tokenizer and directory, and where each stage finds what earlier ones left."""

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from spct_jax import distributed, models
from spct_jax.config import Config
from spct_jax.data import batches, toy
from spct_jax.data.batches import Groups
from spct_jax.data.comparison import Comparison
from spct_jax.data.sources import Demonstration, ReadReport, read_comparisons, read_demonstrations
from spct_jax.data.tokenizer import Tokenizer, train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm import prompts
from spct_jax.models import checkpoints
from spct_jax.models.sizes import ModelConfig
from spct_jax.sampling.grouped import Limits
from spct_jax.sampling.rollouts import Prompter
from spct_jax.sharding import Layout


@dataclasses.dataclass(frozen=True)
class Dataset:
    """All records of a run."""

    train: list[Comparison]
    development: list[Comparison]
    test: list[Comparison]
    demonstrations: list[Demonstration]
    general: list[Demonstration]
    reports: dict[str, ReadReport]
    """Per file or split: records read, used, skipped and why."""


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

    @functools.cached_property
    def _by_id(self) -> dict[str, Comparison]:
        return {c.id: c for c in self.dataset.train}

    def comparison(self, identifier: str) -> Comparison:
        """A training comparison by id."""
        return self._by_id[identifier]

    def key(self, stage: str, step: int = 0) -> jax.Array:
        """The key of a step of a stage."""
        stage_key = jax.random.fold_in(jax.random.key(self.config.seed), zlib.crc32(stage.encode()))
        return jax.random.fold_in(stage_key, step)

    def initial_params(self) -> Any:
        """Parameters that the first training stage starts from."""
        if self.config.init_checkpoint:
            return checkpoints.load(self.config.init_checkpoint, dtype="float32", place=self.layout.params).params

        def init(data):
            return models.init(self.model, jax.random.wrap_key_data(data))

        data = np.asarray(jax.random.key_data(self.key("init")))
        return jax.jit(init, out_shardings=self.layout.params(jax.eval_shape(init, data)))(data)

    def params_of(self, stage: str, *, layout: Layout | None = None, dtype: str | None = None) -> Any:
        """Parameters a finished stage left, where updates (or another layout) want them, by default in the stored dtype."""
        kind = "meta_rm" if stage == "meta_rm" else "policy"
        return checkpoints.load(self.workdir / stage, kind=kind, dtype=dtype, place=(layout or self.layout).params).params

    def policy_before(self, stage: str) -> str:
        """The last stage before `stage` that trains the policy."""
        earlier = [s for s in self.config.stages[: self.config.stages.index(stage)] if s in ("sft", "rft", "rl")]
        if not earlier:
            raise InputError(f"config.stages: {stage} needs a policy; put sft, rft or rl before it")
        return earlier[-1]

    def describe(self, stage: str, kind: str) -> None:
        """Makes the stage's directory a model directory."""
        if distributed.is_first():
            checkpoints.describe(self.workdir / stage, self.model, self.prompter.tokenizer, kind, self.config.prompt)

    def fits(self, comparison: Comparison) -> bool:
        """Whether the comparison's prompt, with a hint where it can have one, is within the limit."""
        shown, longest = range(comparison.n), self.config.data.max_prompt
        return len(self.prompter.encode(comparison, shown, hinted=comparison.n > 1)) <= longest

    def pack(self, token_prompts: Sequence, completions: Sequence, group_size: int) -> Groups:
        """Packs groups to the run's shapes and splits them over the devices."""
        groups = batches.pack(
            token_prompts,
            completions,
            max_prompt=self.limits.max_prompt,
            max_completion=self.limits.max_completion,
            group_size=group_size,
        )
        return self.layout.split(groups)

    def encode_demonstrations(self, demonstrations: Iterable[Demonstration]) -> tuple[list, dict[str, int]]:
        """Examples (id, prompt tokens, completions' tokens) of those that fit, and how many did not and why."""
        data, tokenizer = self.config.data, self.prompter.tokenizer
        examples, skipped = [], {}
        for i, shown in enumerate(demonstrations):
            prompt = tokenizer.encode_turns(shown.turns)
            completions = [tokenizer.encode_completion(c) for c in shown.completions]
            long = len(prompt) > data.max_prompt, any(len(c) > data.max_completion for c in completions)
            if any(long):
                reason = "prompt too long" if long[0] else "completion too long"
                skipped[reason] = skipped.get(reason, 0) + 1
                continue
            examples.append((f"demonstration {i}", prompt, completions))
        if not examples:
            raise InputError(f"no demonstration can be used ({skipped or 'there are none'})")
        return examples, skipped


def load_dataset(config: Config) -> Dataset:
    """Reads the files the config names; the toy world stands in for what it does not.

    Raises:
      InputError: a file is missing or empty, or holds a bad line while `data.on_bad` is `fatal`.
    """
    data, reports = config.data, {}
    if not data.train:
        return _toy_dataset(config)

    def read(reader, path, **options):
        if not path:
            return []
        records, report = reader(path, on_bad=data.on_bad, **options)
        reports[path] = report
        return records

    return Dataset(
        train=read(read_comparisons, data.train, need_best=True),
        development=read(read_comparisons, data.development, need_best=True),
        test=read(read_comparisons, data.test, need_best=True),
        demonstrations=read(read_demonstrations, data.demonstrations),
        general=read(read_demonstrations, data.general),
        reports=reports,
    )


def _toy_dataset(config: Config) -> Dataset:
    world, names = config.data.toy, config.prompt
    template, single = prompts.load_template(names.template), prompts.load_template(names.single_template)
    splits = {s: [p.comparison for p in toy.problems(s, getattr(world, s), world)] for s in toy.SPLITS}
    return Dataset(
        **splits,
        demonstrations=toy.demonstrations(world, template, single),
        general=toy.general_instructions(world),
        reports={name: ReadReport(len(split), len(split)) for name, split in splits.items()},
    )


def drop_misfits(run: Run) -> Run:
    """The run without comparisons whose prompt is too long, which are counted in `dataset.reports`.

    Raises:
      InputError: there is one and `data.on_bad` is `fatal`.
    """
    data, kept = run.config.data, {}
    reports = dict(run.dataset.reports)
    for split in toy.SPLITS:
        comparisons, name = getattr(run.dataset, split), getattr(data, split) or split
        fits = [run.fits(c) for c in comparisons]
        kept[split] = [c for c, fit in zip(comparisons, fits, strict=True) if fit]
        if all(fits):
            continue
        if data.on_bad == "fatal":
            first = comparisons[fits.index(False)].id
            raise InputError(f"{name}: prompt of {first!r} is longer than data.max_prompt ({data.max_prompt} tokens)")
        reports[name] = dataclasses.replace(reports[name], used=len(kept[split]), skipped=dict(reports[name].skipped))
        reports[name].skipped["prompt too long"] = len(comparisons) - len(kept[split])
    return dataclasses.replace(run, dataset=dataclasses.replace(run.dataset, **kept, reports=reports))


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
