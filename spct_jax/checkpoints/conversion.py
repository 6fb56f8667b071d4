"""Converts a model between layouts: ours, Hugging Face's, and (read only) Google's."""

import os
import pathlib
from typing import Any

from spct_jax.checkpoints import chat_files, families, google, hugging_face, leaves, loading, tokenizer_and_templates
from spct_jax.checkpoints import directory as our_directory
from spct_jax.checkpoints.model import Model
from spct_jax.checkpoints.model_kind import ModelKind
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.models import sizes
from spct_jax.storage import files, paths
from spct_jax.storage.paths import Path

FORMATS = ("orbax", "hf")
"""Layouts that are written: ours, Hugging Face's."""
TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
)
"""What transformers keeps besides the weights; copied when source and target are in its layout."""
TOKENIZER_BYTES = 256 << 20
"""The largest of those; `tokenizer.json` of Gemma-3 has 33 million."""


def convert(source: str | os.PathLike, target: str | os.PathLike, layout: str, **how: Any) -> Model:
    """Loads a model and writes it in a layout of `FORMATS`; returns it. Keyword arguments as of `load_any`.

    Raises:
      InputError: `target` exists and is not empty, or the model cannot be loaded or written.
    """
    source, target = paths.of(source), paths.of(target)
    if not source.is_dir():
        raise InputError(f"--from={source}: no such directory")
    files.check_new(target)
    model = load_any(source, **how)
    if layout == "orbax":
        our_directory.save(target, model)
    else:
        write_hf(target, model, source)
    return model


def load_any(
    source: Path, *, kind: ModelKind | None = None, dtype: str | None = None, size: str = "", tokenizer: str = ""
) -> Model:
    """Loads a model of any layout.

    Args:
      source: its directory.
      kind: what it holds; None: what it says. A sequence classifier of Hugging Face's that does not say is a meta RM.
      dtype: of the parameters; None keeps the stored one.
      size: name in `models.SIZES`, for Google's layout only.
      tokenizer: SentencePiece model, where it is not in the directory; of no use with our own layout.

    Raises:
      InputError: it cannot be loaded, or needs no size or tokenizer; the message says why.
    """
    ours, theirs = (source / our_directory.CARD).is_file(), hugging_face.is_hf_directory(source)
    if size and (ours or theirs):
        raise InputError(f"{source}: describes itself; --size is for Google's layout only")
    if theirs:
        found = loading.read_tokenizer(source, tokenizer)
        params, config, found_kind = hugging_face.read_weights(source, kind=kind, dtype=dtype, num_tokens=found.vocab_size)
        leaves.check_finite(params, source)
        return Model(params, config, found, found_kind, prompt=tokenizer_and_templates.read_templates(source))
    if ours:
        if tokenizer:
            raise InputError(f"{source}: has a tokenizer of its own; --tokenizer is for other layouts only")
        return loading.load(source, kind=kind or our_directory.read_card(source).kind, dtype=dtype)
    if google.is_google_directory(source):
        if not size or not tokenizer:
            raise InputError(f"{source}: a bare Orbax checkpoint does not describe itself; give --size and --tokenizer")
        params, config = google.load_google(source, sizes.get(size), dtype=dtype or "bfloat16")
        leaves.check_finite(params, source)
        found = Tokenizer.load(tokenizer)
        if found.vocab_size > config.vocab_size:
            raise InputError(f"{source}: the tokenizer has {found.vocab_size} pieces, the model {config.vocab_size} rows")
        return Model(params, config, found)
    near = our_directory.nearby(source)
    raise InputError(f"{source}: neither a model of this library nor Hugging Face's nor an Orbax checkpoint{near}")


def write_hf(target: Path, model: Model, source: Path) -> None:
    """Writes safetensors, `config.json` and what transformers needs of the tokenizer, some of it copied from `source`."""
    tokenizer = model.tokenizer
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}

    def extra(directory: pathlib.Path) -> None:
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                (directory / name).write_bytes(files.read_bytes(files.contained(source, name), TOKENIZER_BYTES))
        tokenizer.save(directory / tokenizer_and_templates.TOKENIZER)
        if model.prompt is not None:
            tokenizer_and_templates.write_templates(directory, model.prompt)
        made = {
            chat_files.TOKENIZER_CONFIG: dict(families.family_of(model.config).tokenizer_config)
            | chat_files.write_hf(tokenizer),
            hugging_face.GENERATION_CONFIG: ids | {"eos_token_id": list(tokenizer.stop_ids)},
        }
        for name, content in made.items():
            if not (directory / name).exists():
                files.write_json(directory / name, content)

    hugging_face.save_hf(target, model.params, model.config, kind=model.kind, tokens=ids, extra=extra)
