"""What a model directory of either layout holds besides the weights: the tokenizer and the texts of the templates.

DIR/tokenizer.model
DIR/templates/{template,single_template,meta_template,choice_template}.txt
"""

import dataclasses
import os

from spct_jax.checkpoints.chat_files import Chat
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.template import load_template
from spct_jax.storage import files, paths
from spct_jax.storage.paths import Path

TOKENIZER = "tokenizer.model"
TEMPLATES = "templates"
"""The folder of a model's templates."""


def read_tokenizer(directory: Path, described_in: str, field: str, chat: Chat, file: str = "") -> Tokenizer:
    """The tokenizer of a model directory, with all ids that the model stops at.

    Args:
      directory: holds `tokenizer.model`, unless it lies elsewhere.
      described_in: the JSON file of the directory that lists those ids, if it is there.
      field: the field that lists them.
      chat: its chat format and control pieces, as far as the directory names them.
      file: the SentencePiece model, where it is not the directory's.

    Raises:
      InputError: there is no tokenizer, or what the field lists are no ids of its pieces.
    """
    path = directory / described_in
    stops = (files.read_json(path).get(field) or []) if files.is_there(path) else []
    stops = stops if isinstance(stops, list) else [stops]
    pieces = file or files.contained(directory, TOKENIZER)
    if not file and not files.is_there(pieces):
        raise InputError(f"{directory}: has no {TOKENIZER}, and other files of a tokenizer are not read; copy the base model's")
    tokenizer = Tokenizer.load(pieces, **chat._asdict())
    for index in stops:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < tokenizer.vocab_size:
            raise InputError(f"{path}: {field} holds {index!r}, no id of the tokenizer's {tokenizer.vocab_size} pieces")
    return tokenizer.stopping_at(stops)


def write_templates(directory: str | os.PathLike, prompt: PromptConfig) -> None:
    """Writes the texts of the templates into a model directory, so that the model carries them wherever it goes."""
    folder = paths.of(directory) / TEMPLATES
    files.make_directory(folder)
    for role, name in vars(prompt).items():
        files.write(folder / f"{role}.txt", load_template(name).text)


def read_templates(directory: str | os.PathLike) -> PromptConfig | None:
    """The templates that a model directory of either layout carries, as paths in it; None where it carries none.

    Raises:
      InputError: one of the four is missing or no template.
    """
    folder = files.contained(directory, TEMPLATES)
    roles = [field.name for field in dataclasses.fields(PromptConfig)]
    if not any(files.is_there(folder / f"{role}.txt") for role in roles):
        return None
    found = {role: paths.absolute(files.contained(folder, f"{role}.txt")) for role in roles}
    for path in found.values():
        if not path.exists():
            raise InputError(f"{path}: missing beside the other templates of this model")
        load_template(path)
    return PromptConfig(**{role: str(path) for role, path in found.items()})
