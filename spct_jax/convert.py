"""Converts checkpoints between layouts: `python -m spct_jax.convert --from=DIR --to=DIR --format=orbax|hf`.

The source is recognised: a model directory of this library, Hugging Face's safetensors, or Google's Orbax (which has no
description of itself, so `--size` must name it and `--tokenizer` the tokenizer). The target is written beside its name and
renamed when it is whole.
"""

import dataclasses
import json
import pathlib

from absl import flags

from spct_jax import checkpoints, cli, distributed, files
from spct_jax.checkpoints import Model, google, hugging_face, safetensors_files
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.models import sizes

FORMATS = ("orbax", "hf")
TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
)
"""What transformers keeps beside the weights; copied when both ends are in its layout."""
TOKENIZER_BYTES = 256 << 20
"""The largest of those; `tokenizer.json` of Gemma-3 has 33 million."""

FLAGS = flags.FlagValues()
FROM = flags.DEFINE_string("from", None, "Directory to read.", required=True, flag_values=FLAGS)
TO = flags.DEFINE_string("to", None, "Directory to write; must not exist.", required=True, flag_values=FLAGS)
FORMAT = flags.DEFINE_enum("format", None, FORMATS, "Layout to write.", required=True, flag_values=FLAGS)
DTYPE = flags.DEFINE_enum(
    "dtype", None, safetensors_files.DTYPES, "Of the parameters; default: as they are stored.", flag_values=FLAGS
)
SIZE = flags.DEFINE_enum("size", None, sorted(sizes.SIZES), "Size of a checkpoint in Google's layout.", flag_values=FLAGS)
TOKENIZER = flags.DEFINE_string("tokenizer", None, "SentencePiece model, if none lies beside the weights.", flag_values=FLAGS)


def load(source: pathlib.Path, *, dtype: str | None, size: str = "", tokenizer: str = "") -> Model:
    """Loads a model of any layout.

    Args:
      source: its directory.
      dtype: of the parameters; None keeps the stored one.
      size: name in `models.SIZES`, needed for Google's layout only.
      tokenizer: SentencePiece model, where it is not in the directory.

    Raises:
      InputError: it cannot be loaded; the message says why.
    """
    if hugging_face.is_hf_directory(source):
        found = Tokenizer.load(tokenizer) if tokenizer else checkpoints.read_tokenizer(source)
        params, config, kind = hugging_face.read_weights(source, dtype=dtype, num_tokens=found.vocab_size)
        checkpoints.check_finite(params, source)
        return Model(params, config, found, kind, prompt=checkpoints.read_templates(source))
    if (source / "model.json").is_file():
        return checkpoints.load(source, kind=checkpoints.read_card(source)[1], dtype=dtype)
    if google.is_google_directory(source):
        if not size or not tokenizer:
            raise InputError(f"{source}: a bare Orbax checkpoint does not describe itself; give --size and --tokenizer")
        params, config = google.load_google(source, sizes.get(size), dtype=dtype or "bfloat16")
        checkpoints.check_finite(params, source)
        found = Tokenizer.load(tokenizer)
        if found.vocab_size > config.vocab_size:
            raise InputError(f"{source}: the tokenizer has {found.vocab_size} pieces, the model {config.vocab_size} rows")
        return Model(params, config, found)
    raise InputError(f"{source}: neither a model of this library nor Hugging Face's nor an Orbax checkpoint")


def write_hf(target: pathlib.Path, model: Model, source: pathlib.Path) -> None:
    """Writes safetensors, `config.json` and what transformers needs of the tokenizer."""
    tokenizer = model.tokenizer
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}

    def extra(directory):
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                (directory / name).write_bytes(files.read_bytes(files.contained(source, name), TOKENIZER_BYTES))
        tokenizer.save(directory / "tokenizer.model")
        if model.prompt is not None:
            checkpoints.write_templates(directory, model.prompt)
        if not (directory / "tokenizer_config.json").exists():
            files.write_json(directory / "tokenizer_config.json", _tokenizer_config())
        if not (directory / "generation_config.json").exists():
            files.write_json(directory / "generation_config.json", ids | {"eos_token_id": list(tokenizer.stop_ids)})

    hugging_face.save_hf(target, model.params, model.config, kind=model.kind, tokens=ids, extra=extra)


def _tokenizer_config() -> dict:
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return names | {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
        "clean_up_tokenization_spaces": False,
    }


def convert(source: pathlib.Path, target: pathlib.Path, layout: str, **how) -> Model:
    """Loads a model and writes it in `layout`; returns it. Keyword arguments as of `load`."""
    if not source.is_dir():
        raise InputError(f"--from={source}: no such directory")
    files.check_new(target)
    model = load(source, **how)
    if layout == "orbax":
        checkpoints.save(target, model)
    else:
        write_hf(target, model, source)
    return model


def main(_) -> None:
    """Entry of `python -m spct_jax.convert`."""
    distributed.devices()
    source, target = files.local_path(FROM.value, "--from"), files.local_path(TO.value, "--to")
    tokenizer = str(files.local_path(TOKENIZER.value, "--tokenizer")) if TOKENIZER.value else ""
    model = convert(source, target, FORMAT.value, dtype=DTYPE.value or None, size=SIZE.value or "", tokenizer=tokenizer)
    print(f"{target}: {model.kind}, {json.dumps(dataclasses.asdict(model.config))}")


if __name__ == "__main__":
    cli.run(main, FLAGS)
