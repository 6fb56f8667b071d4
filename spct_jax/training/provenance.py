"""What a stage depends on: fields of the configuration, and the content of the files that they name.

When a stage begins, it records this in its directory. A run can continue in its directory as long as what its stages began
with is unchanged; a field that no stage has read yet may change.
"""

import dataclasses
import hashlib
import json
import os
from typing import Any

from spct_jax.checkpoints import chat_files, hugging_face
from spct_jax.config import STAGES, Config
from spct_jax.data import mixtures
from spct_jax.data.config import DATA_FILES, SOURCES, SPLITS
from spct_jax.data.index import Records
from spct_jax.data.sources import Source, parse_source
from spct_jax.errors import InputError
from spct_jax.grm import rewards
from spct_jax.grm.template import load_template, template_names
from spct_jax.runtime import distributed
from spct_jax.storage import digests, files, local_copies, paths
from spct_jax.storage.paths import Path

_FREE = ("mesh", "checkpoint", "profile_steps", "model.remat", "model.time_chunk", "model.attention")
"""Fields, and sections of fields, that say how and where things are computed, so that results differ in last bits at most."""
_FREE_OF_STAGES = ("accumulate", "slots")
"""The same of every stage: how much is computed at once."""
_READ_BY_ALL = ("seed", "stages", "init_checkpoint", "model", "prompt", "data", "tokenizer.model")
_SECTION = {stage: "evaluation" if stage == "evaluate" else stage for stage in STAGES}
"""The section that a stage reads in addition. Fields of splits that a stage does not use are left out."""
FITTING = "data.train.fitting"
"""In place of a field: which training comparisons fit. That depends on what all stages read, those behind it included."""
_READ_BY_NUMBER = {"rejection": ("rft", "rl", "meta_rm"), "rl": ("meta_rm",)}
"""Stages whose completions are matched to comparisons by the comparisons' numbers, and the stages that do so."""


def absolute(config: Config) -> Config:
    """The configuration with every path in it absolute, so that a file found once is found again from anywhere.

    Raises:
      InputError: one of them is a URL that cannot be read.
    """

    def full(field: str, path: str) -> str:
        return str(paths.parse(path, f"--config.{field}")) if path else path

    def named(field: str, text: str) -> str:
        return mixtures.replaced(text, lambda source: str(parse_source(source).absolute(f"--config.{field}"))) if text else text

    data: dict[str, Any] = {name: named(f"data.{name}", getattr(config.data, name)) for name in SOURCES}
    if config.data.is_toy:
        data |= {name: "" for name in SOURCES if data[name] == "toy:"}
    data |= {name: full(f"data.{name}", getattr(config.data, name)) for name in ("tokenizer", "data_dir")}
    data["decontaminate"] = tuple(named("data.decontaminate", text) for text in config.data.decontaminate)
    templates = {
        role: name if name in template_names() else full(f"prompt.{role}", name) for role, name in vars(config.prompt).items()
    }
    reward = config.rl.reward
    if reward:
        file, function = rewards.parts(reward)
        reward = f"{full('rl.reward', file)}:{function}"
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, **data),
        rl=dataclasses.replace(config.rl, reward=reward),
        prompt=dataclasses.replace(config.prompt, **templates),
        init_checkpoint=full("init_checkpoint", config.init_checkpoint),
    )


def values(config: Config, workdir: Path) -> dict[str, Any]:
    """Dotted field -> its value as in JSON, or a digest of the content if it names a file or a model.

    The toy world's fields are left out if files are read; `tokenizer.model` is the run's own tokenizer, if there is one. All
    processes must call this.

    Raises:
      InputError: a file cannot be read.
    """
    first = distributed.gather(_values(config, workdir) if distributed.is_first() else None)[0]
    if isinstance(first, InputError):
        raise first
    return first


def _values(config: Config, workdir: Path) -> dict[str, Any] | InputError:
    found = dict(_leaves(json.loads(json.dumps(dataclasses.asdict(config)))))
    data, kept = config.data, workdir / "data" / "digests.json"
    texts = [source for name in SOURCES if getattr(data, name) for _, source in mixtures.parse(getattr(data, name))]
    if data.train and not any(parse_source(text).format == "toy" for text in texts):
        found = {field: value for field, value in found.items() if not field.startswith("data.toy.")}
    del found["data.data_dir"]  # the content of what is read there counts
    if not data.fields:
        del found["data.fields"]
    found["data"] = "files" if config.data.train else "the toy world"

    def digest(source: str) -> str:
        return _source_digest(parse_source(source), data.data_dir, kept)

    try:
        for name in SOURCES:
            if text := getattr(data, name):
                found[f"data.{name}"] = mixtures.replaced(text, digest)
        found["data.decontaminate"] = [digest(text) for text in data.decontaminate]
        if data.tokenizer:
            found["data.tokenizer"] = _digest(paths.of(data.tokenizer), kept)
        for role, name in vars(config.prompt).items():
            if name:
                found[f"prompt.{role}"] = digests.of_bytes(load_template(name).text.encode())
        if config.rl.reward:
            file, function = rewards.parts(config.rl.reward)
            found["rl.reward"] = f"{_digest(paths.of(file), kept)}:{function}"
        if config.init_checkpoint:
            found["init_checkpoint"] = _model_digest(paths.of(config.init_checkpoint))
        if (workdir / "tokenizer.model").exists():
            found["tokenizer.model"] = digests.of_bytes((workdir / "tokenizer.model").read_bytes())
    except InputError as error:
        return error
    return found


def is_free(field: str) -> bool:
    """Whether a stage goes on with another value of a field: one that runs out of memory, say, with less at once."""
    return not set(_FREE).isdisjoint(_sections(field)) or field.rpartition(".")[2] in _FREE_OF_STAGES


def fitting(train: Records) -> dict[str, Any]:
    """What tells whether other training comparisons fit: `FITTING` -> [how many, digest of their numbers]."""
    return {FITTING: [len(train), digests.of_bytes(train.numbers.tobytes())]}


def read_by(stage: str, config: Config, values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values` that a stage depends on, with those of the stages that it builds on."""
    before = [s for s in config.stages if STAGES.index(s) <= STAGES.index(stage)]
    splits = {"train"} if set(before) - {"sft", "evaluate"} else set()
    splits |= {config.evaluation.split} if stage == "evaluate" else set()
    splits |= {"train"} if splits and config.data.split else set()
    prefixes = {*_READ_BY_ALL, *(_SECTION[s] for s in before)}
    if "meta_rm" in before and config.meta_rm.policy_data == "draws":
        prefixes.add("rejection")  # says how many are drawn, and for which comparisons
    other = {f"data.{split}" for split in SPLITS if split not in splits}
    other |= set() if splits else {"data.split"}
    other |= set() if "train" in splits else {FITTING}
    other |= {f"data.toy.{split}" for split in ("development", "test") if split not in splits}
    other |= {field for field in values if is_free(field)}
    chosen = {
        field: value for field, value in values.items() if field not in other and not prefixes.isdisjoint(_sections(field))
    }
    return chosen | {"stages": before}


def begin(stage: str, config: Config, workdir: Path, values: dict[str, Any]) -> None:
    """Makes a stage's directory and records in it what the stage depends on."""
    if distributed.is_first():
        files.make_directory(workdir / stage)
    path = workdir / stage / "reads.json"
    if not distributed.agree(path.exists()):
        files.write_json(path, read_by(stage, config, values))
    distributed.barrier(f"begin of {stage}")


def begun(workdir: Path) -> list[str]:
    """The stages that have begun in a directory."""
    found = [s for s in STAGES if (workdir / s).is_dir() and any((workdir / s).iterdir())]
    return distributed.gather(found)[0]


def check(config: Config, workdir: Path, values: dict[str, Any]) -> None:
    """Compares what every stage began with to what it would read now; `FITTING` only where both say it.

    Raises:
      InputError: they differ; names the field, or the file that it names, and the stage that has read it.
    """
    for stage in begun(workdir):
        path = workdir / stage / "reads.json"
        if not path.exists():
            raise InputError(
                f"{workdir / stage}: does not say what it was begun with (no reads.json); choose another --workdir"
            )
        if stage not in config.stages:
            raise InputError(f"config.stages: {stage} has begun in {workdir}; choose another --workdir")
        old, new = files.read_json(path), read_by(stage, config, values)
        if not (FITTING in old and FITTING in new and _reads_on(stage, config, workdir)):
            old, new = ({field: value for field, value in one.items() if field != FITTING} for one in (old, new))
        compared = (field for field in old.keys() | new.keys() if not is_free(field))  # earlier versions kept free ones, too
        for field in sorted(compared, key=lambda field: (field != "data", field)):
            if old.get(field) != new.get(field) and not (field == "tokenizer.model" and field not in new):
                raise InputError(_difference(config, workdir, stage, field, old.get(field), new.get(field)))


def _reads_on(stage: str, config: Config, workdir: Path) -> bool:
    """Whether a stage has not ended, or one has not that matches the completions of it to comparisons by number."""
    readers = (stage, *_READ_BY_NUMBER.get(stage, ()))
    return any(s in config.stages and not (workdir / s / "summary.json").exists() for s in readers)


def _difference(config: Config, workdir: Path, stage: str, field: str, old: Any, new: Any) -> str:
    if field == "tokenizer.model":
        return f"{workdir / field}: was altered since {stage} began; choose another --workdir"
    if field == FITTING:
        return (
            f"config.stages: the training comparisons that fit all that these stages read ({new[0]:,}) are not those that "
            f"{stage} began with ({old[0]:,}); keep the stages as they were then, or choose another --workdir"
        )
    name = field if field == "data" else f"config.{field}"
    contents = {"data.decontaminate": " and ".join(config.data.decontaminate), "init_checkpoint": config.init_checkpoint}
    contents |= {f"data.{name}": getattr(config.data, name) for name in DATA_FILES}
    contents |= {f"prompt.{role}": template for role, template in vars(config.prompt).items()}
    if old and contents.get(field):
        differs = f"the content of {contents[field]} is not that which {stage} began with"
    else:
        differs = f"was {old!r} when {stage} began in {workdir}, and is {new!r} now"
    return f"{name}: {differs}; choose another --workdir, or remove {stage} and the stages behind it there to begin them anew"


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for name, value in tree.items():
        pairs += _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return pairs


def _sections(field: str) -> list[str]:
    """A dotted field and all sections that it is part of."""
    parts = field.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _digest(path: Path, kept: Path) -> str:
    """Digest of a file's bytes, cached in the JSON file `kept` while its size and modification time stay the same."""
    local = local_copies.of_file(path)
    try:
        found = os.stat(local)
        stamp = [found.st_size, found.st_mtime_ns]
        known = files.read_json(kept) if kept.exists() else {}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except InputError:  # a damaged cache is written again
        known = {}
    entry = known.get(str(path))
    if isinstance(entry, list) and entry[:1] == [stamp]:
        return entry[1]
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(local, "rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    files.make_directory(kept.parent)
    files.write_json(kept, known | {str(path): [stamp, digest.hexdigest()]})
    return digest.hexdigest()


def _source_digest(source: Source, data_dir: str, kept: Path) -> str:
    """Digest of what is read of a source: its files, and what their rows are taken for."""
    found = [_digest(path, kept) for path in source.paths(data_dir)]
    if source.bare and len(found) == 1:
        return found[0]
    split = source.place.partition(":")[2] if source.format == "tfds" else source.place if source.format == "toy" else ""
    return digests.of_json([source.layout, source.format, split, found])


def _model_digest(directory: Path) -> str:
    """Digest of a model's description, tokenizer and chat format; that of its parameters is compared when they are loaded."""
    theirs = hugging_face.is_hf_directory(directory)
    described = "config.json" if theirs else "model.json"
    content = [directory / file for file in (described, "tokenizer.model", "generation_config.json")]
    found: list[Any] = [digests.of_bytes(files.read_bytes(path)) if path.exists() else "" for path in content]
    chat = chat_files.read_hf(directory) if theirs else chat_files.Chat()
    return digests.of_json([*found, chat] if chat.chat else found)
