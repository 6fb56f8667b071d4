"""Model directories of our own layout, which training writes: a description, a tokenizer, templates, and steps.

DIR/model.json                                           what the model is, and digests of the other files
DIR/tokenizer.model
DIR/templates/{template,single_template,meta_template,choice_template}.txt
DIR/checkpoints/<step>/{params,opt_state,progress,digests}
"""

import dataclasses
import os
from typing import Any, NamedTuple

import jax

from spct_jax.checkpoints import chat_files, restore, steps, tokenizer_and_templates
from spct_jax.checkpoints.chat_files import Chat
from spct_jax.checkpoints.model import COMPUTE, Model, Shardings, digest_of
from spct_jax.checkpoints.model_kind import ModelKind, abstract_params
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.template import load_template
from spct_jax.models.config import ModelConfig
from spct_jax.sharding import logical
from spct_jax.storage import digests, files, paths
from spct_jax.storage.paths import Path

CARD = "model.json"


class Card(NamedTuple):
    """What a `model.json` says."""

    config: ModelConfig
    kind: ModelKind
    chat: Chat = Chat()


def describe(
    directory: str | os.PathLike,
    config: ModelConfig,
    tokenizer: Tokenizer,
    kind: ModelKind = ModelKind.POLICY,
    prompt: PromptConfig | None = None,
) -> None:
    """Writes what a reader needs besides the parameters; `prompt` are the templates that the model was trained with."""
    directory = paths.of(directory)
    files.make_directory(directory)
    tokenizer.save(directory / tokenizer_and_templates.TOKENIZER)
    card = {
        "kind": kind.value,
        "stop_ids": tokenizer.stop_ids,
        **config.stored(),
        **chat_files.write_card(tokenizer),
    }
    texts = {role: load_template(name).text.encode() for role, name in vars(prompt).items()} if prompt else {}
    card["digests"] = {
        name: digests.of_bytes(content) for name, content in {"tokenizer": tokenizer.model_proto, **texts}.items()
    }
    files.write_json(directory / CARD, card | {"digest": digests.of_json(card)})
    if prompt is not None:
        tokenizer_and_templates.write_templates(directory, prompt)


def save(directory: str | os.PathLike, model: Model) -> None:
    """Writes a model directory, all of it or nothing; InputError if it holds something already."""
    with files.new_directory(directory, sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))) as scratch:
        describe(scratch, model.config, model.tokenizer, model.kind, model.prompt)
        with steps.manager(scratch) as manager:
            steps.save(manager, model.step, model.params)


def read_card(directory: str | os.PathLike) -> Card:
    """What a model directory says that it holds; InputError if it is none of ours."""
    path = paths.of(directory) / CARD
    if not path.is_file():
        missing = "it has no model.json, nor Hugging Face's config.json and weights"
        raise InputError(f"{directory}: not a checkpoint ({missing}){nearby(directory)}")
    card = files.read_json(path)
    digest = card.pop("digest", None)
    if digest is not None and digest != digests.of_json(card):
        raise InputError(f"{path}: was altered since it was written (its digest is another)")
    kinds = {kind.value: kind for kind in ModelKind}
    if not isinstance(word := card.pop("kind", None), str) or word not in kinds:
        raise InputError(f"{path}: kind is {word!r}, none of {', '.join(kinds)}")
    if not isinstance(card.pop("digests", {}), dict):
        raise InputError(f"{path}: digests are no object")
    card.pop("stop_ids", None)
    chat = chat_files.read_card(path, card)
    try:
        config = ModelConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in card.items()})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a model description ({error})") from None
    return Card(config, kinds[word], chat)


def nearby(directory: str | os.PathLike) -> str:
    """The end of a message that a directory is no model: the models of ours in it or that it lies in; '' without any."""
    path = paths.absolute(paths.of(directory))
    around = next((above for above in path.parents[:2] if (above / CARD).is_file()), None)
    if around is not None:
        return f"; it is a part of {around}"
    inside = sorted(card.parent.name for card in path.glob(f"*/{CARD}"))
    return f"; in it there are {', '.join(inside)}" if inside else ""


def read_tokenizer(directory: Path, file: str = "") -> Tokenizer:
    """The tokenizer of a model directory of ours, with all ids that the model stops at; `file` stands in for its own."""
    tokenizer = tokenizer_and_templates.read_tokenizer(directory, CARD, "stop_ids", read_card(directory).chat, file)
    if not file:
        _check_digest(directory, "tokenizer", tokenizer_and_templates.TOKENIZER, tokenizer.model_proto)
    return tokenizer


def load(directory: Path, kind: ModelKind, dtype: str | None, shardings: Shardings | None, file: str = "") -> Model:
    """The newest intact parameters of a model directory of ours; arguments and errors as of `hugging_face.load`."""
    config, found, _ = read_card(directory)
    if found is not kind:
        raise InputError(f"{directory}: holds a {found} checkpoint, not a {kind} one")
    if not (directory / "checkpoints").is_dir():
        raise InputError(f"{directory}: not a checkpoint (it has no 'checkpoints' folder)")

    def cast(params: Any) -> Any:
        if dtype == COMPUTE:
            return logical.cast(params, config.dtype)
        return jax.tree.map(lambda leaf: leaf.astype(dtype or leaf.dtype), params)

    stored = restore.read_newest(directory, {"params": _target(config, kind, shardings)}, cast)
    if stored is None:
        raise InputError(f"{directory}: not a checkpoint ('checkpoints' holds no finished step)")
    tokenizer, prompt = read_tokenizer(directory, file), tokenizer_and_templates.read_templates(directory)
    for role, path in vars(prompt).items() if prompt else ():
        _check_digest(directory, role, f"{tokenizer_and_templates.TEMPLATES}/{role}.txt", load_template(path).text.encode())
    digest = digest_of(stored.digests["params"], config, tokenizer, prompt)
    config = config if dtype in (None, COMPUTE) else dataclasses.replace(config, dtype=dtype)
    return Model(cast(stored.trees["params"]), config, tokenizer, kind, stored.step, prompt, digest)


def _target(config: ModelConfig, kind: ModelKind, shardings: Shardings | None) -> Any:
    """The parameters as shapes, dtypes and shardings."""
    params = abstract_params(config, kind)
    # Not the devices that the checkpoint was written from, which may be others or more than there are here.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    where = jax.tree.map(lambda _: here, params) if shardings is None else shardings(params)
    return jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), params, where)


def _check_digest(directory: Path, field: str, name: str, content: bytes) -> None:
    """InputError where a file is not the one that `model.json` was written with, as far as it says."""
    recorded = files.read_json(directory / CARD).get("digests", {}).get(field)
    if recorded not in (None, digests.of_bytes(content)):
        raise InputError(f"{directory / name}: was altered since model.json was written (its digest is another)")
