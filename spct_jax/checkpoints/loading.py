"""Loads a model directory wherever a checkpoint is asked for: one of our layout, or of Hugging Face's."""

import os

from spct_jax.checkpoints import config_json, hugging_face, leaves
from spct_jax.checkpoints import directory as our_directory
from spct_jax.checkpoints.model import Model, Shardings
from spct_jax.checkpoints.model_kind import ModelKind
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.models.config import ModelConfig
from spct_jax.storage import paths


def load(
    directory: str | os.PathLike,
    *,
    kind: ModelKind = ModelKind.POLICY,
    dtype: str | None = None,
    shardings: Shardings | None = None,
    tokenizer: str = "",
) -> Model:
    """Loads a model directory of our layout (its newest intact parameters) or of Hugging Face's.

    Args:
      directory: the model.
      kind: what the directory must hold.
      dtype: of parameters and activations. None: as stored, but float32 for Hugging Face's files where JAX runs on CPU.
        COMPUTE: as None, but the matrices of ours in the dtype that the model computes with; see `logical.cast`.
      shardings: gives where the parameters go; each device reads its own shards only. None: all on the first device.
      tokenizer: SentencePiece model that is read in place of the directory's own.

    Raises:
      InputError: the directory is no checkpoint, is of another kind, a leaf differs from what its description says, its bytes
        are not those that were saved, or a weight is not finite.
    """
    path = paths.absolute(paths.of(directory))
    if not path.is_dir():
        raise InputError(f"{path}: no such checkpoint directory")
    if hugging_face.is_hf_directory(path):
        model = hugging_face.load(path, kind, dtype, shardings, tokenizer)
    else:
        model = our_directory.load(path, kind, dtype, shardings, tokenizer)
    leaves.check_finite(model.params, path)
    return model


def read_kinds(directory: str | os.PathLike) -> tuple[ModelKind, ...]:
    """What a model directory of either layout can hold: several kinds where it does not say; InputError if it is neither."""
    if hugging_face.is_hf_directory(directory):
        return config_json.read_config(paths.of(directory) / "config.json").kinds
    return (our_directory.read_card(directory).kind,)


def read_architecture(directory: str | os.PathLike) -> ModelConfig:
    """The architecture of a model directory of either layout, without its parameters; InputError if it is neither."""
    if hugging_face.is_hf_directory(directory):
        return config_json.read_config(paths.of(directory) / "config.json").config
    return our_directory.read_card(directory).config


def read_tokenizer(directory: str | os.PathLike, file: str = "") -> Tokenizer:
    """The tokenizer of a model directory of either layout, in its chat format and with all ids that the model stops at.

    `file`, if it is given, is read in place of the directory's own SentencePiece model. InputError if either cannot be read.
    """
    layout = hugging_face if hugging_face.is_hf_directory(directory) else our_directory
    return layout.read_tokenizer(paths.of(directory), file)
