"""The data of a run: its records, templates and tokenizer."""

import dataclasses

from spct_jax import checkpoints
from spct_jax.config import Config
from spct_jax.data import fields
from spct_jax.data.config import SPLITS
from spct_jax.data.index import Records
from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.data.kinds import Kind
from spct_jax.data.sources import open_source, parse_source
from spct_jax.data.tokenizer import Tokenizer, train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.template import Template, load_template
from spct_jax.runtime import distributed
from spct_jax.storage.paths import Path
from spct_jax.toy import demonstrator, world
from spct_jax.toy.config import ToyConfig
from spct_jax.training.context import Dataset


def load_dataset(config: Config, directory: Path) -> Dataset:
    """Finds the records of the sources that the config names. If that for training is the toy world, so are those not named.

    `directory` keeps an index of which rows are good and where they are.

    Raises:
      InputError: a file is missing or empty, or holds a bad row while `data.on_bad` is `fatal`.
    """
    data = config.data
    if data.is_toy:
        places = {field: parse_source(getattr(data, field) or "toy:").place or field for field in fields.KINDS}
        found = {field: toy_records(data.toy, config.prompt, field, place) for field, place in places.items()}
        return Dataset(**found, reports={split: ReadReport(len(found[split]), len(found[split])) for split in SPLITS})

    if data.train == "toy:":
        empty = [field for field in fields.KINDS if not getattr(data, field) and not (data.split and field in SPLITS)]
        data = dataclasses.replace(data, **dict.fromkeys(empty, "toy:"))

    def open_one(text: str, kind: Kind, on_bad: OnBad, name: str) -> tuple[Records, ReadReport]:
        source = parse_source(text)
        if source.format == "toy":
            field = name.partition(".")[0]
            records = toy_records(data.toy, config.prompt, field, source.place or field)
            return records, ReadReport(len(records), len(records))
        return open_source(
            source, kind, on_bad=on_bad, directory=directory, name=name, data_dir=data.data_dir, fields=data.fields
        )

    records, reports = fields.load(data, open_one, directory)
    return Dataset(**records, reports=reports)


def toy_records(toy: ToyConfig, prompt: PromptConfig, field: str, split: str) -> Records:
    """The toy world's records of a split, for a field of the config."""
    splits = SPLITS if field in SPLITS else (field,)
    if split not in splits:
        raise InputError(f"config.data.{field}: the toy world has no {split!r} for it ({', '.join(splits)})")
    if split in SPLITS:
        made = [problem.comparison for problem in world.problems(split, getattr(toy, split), toy)]
    elif split == "general":
        made = demonstrator.general_instructions(toy)
    else:
        template, single, choice = map(load_template, (prompt.template, prompt.single_template, prompt.choice_template))
        chooses = template.text == choice.text
        _check_toy_templates(toy, template, single, chooses)
        made = demonstrator.demonstrations(toy, template, single, chooses=chooses)
    return Records.of(made, repr(toy))


def _check_toy_templates(toy: ToyConfig, template: Template, single: Template, chooses: bool) -> None:
    """Raises InputError, naming the field, where demonstrations of the toy world do not end as a template asks."""
    compared, alone, hinted = toy.demonstration_mix
    if hinted and template.hint is None:
        raise InputError(f"config.prompt.template: {template.name} has no hint section, as hinted demonstrations need")
    for role, form, needed, low, high in (
        ("template", template, compared or hinted, 1, 10),
        ("single_template", single, alone, 0, 1),
    ):
        scored = chooses and form is template or form.low <= low < high <= form.high
        if needed and not (form.parts and scored):
            raise InputError(
                f"config.prompt.{role}: demonstrations of the toy world have labelled parts and scores from {low} to {high}, "
                f"unlike {form.name}; name others by config.data.demonstrations, with config.data.train=toy:"
            )


def name_templates(config: Config) -> Config:
    """The config with every template named: its own, else that of the initial checkpoint, else the short one.

    Raises:
      InputError: the initial checkpoint carries only some of its templates, or a stage needs a hint that its template lacks.
    """
    carried = checkpoints.read_templates(config.init_checkpoint) if config.init_checkpoint else None
    named = {role: name for role, name in vars(config.prompt).items() if name}
    prompt = dataclasses.replace(carried or PromptConfig(), **named)
    if "rejection" in config.stages and config.rejection.hinted and load_template(prompt.template).hint is None:
        raise InputError(
            f"config.prompt.template: {prompt.template} has no hint section; add one, or set config.rejection.hinted=False"
        )
    return dataclasses.replace(config, prompt=prompt)


def load_tokenizer(config: Config, dataset: Dataset, path: Path) -> Tokenizer:
    """The tokenizer the config names, that of the initial checkpoint, or one trained on the demonstrations.

    A trained one is kept at `path`, so that it is trained only once.

    Raises:
      InputError: one cannot be read, or there is nothing to train one on, or too little room for what there is.
    """
    if config.init_checkpoint:
        return checkpoints.read_tokenizer(config.init_checkpoint, config.data.tokenizer)
    if config.data.tokenizer:
        return Tokenizer.load(config.data.tokenizer)
    if not len(dataset.demonstrations) + len(dataset.general):
        missing = "a tokenizer is trained on them, and there are none; name one by config.data.tokenizer"
        raise InputError(f"config.data.demonstrations: {missing}, or a model by config.init_checkpoint")
    if not path.exists() and distributed.is_first():
        shown = [*dataset.demonstrations, *dataset.general]
        texts = [turn.content for d in shown for turn in d.turns] + [c for d in shown for c in d.completions]
        try:
            trained = train_tokenizer(texts, vocab_size=config.data.vocab_size)
        except InputError as error:
            raise InputError(f"config.data.vocab_size: {error}") from None
        trained.save(path)
    distributed.barrier("tokenizer")
    return Tokenizer.load(path)
