"""Models on disk: our directories, Hugging Face's layout, Google's, and the state of training."""

from spct_jax.checkpoints.conversion import convert, load_any
from spct_jax.checkpoints.directory import Card, describe, read_card, save
from spct_jax.checkpoints.leaves import check_finite, first_not_finite
from spct_jax.checkpoints.loading import load, read_architecture, read_kinds, read_tokenizer
from spct_jax.checkpoints.model import COMPUTE, Model
from spct_jax.checkpoints.model_kind import ModelKind, abstract_params
from spct_jax.checkpoints.tokenizer_and_templates import read_templates, write_templates

__all__ = [
    "COMPUTE",
    "Card",
    "Model",
    "ModelKind",
    "abstract_params",
    "check_finite",
    "convert",
    "describe",
    "first_not_finite",
    "load",
    "load_any",
    "read_architecture",
    "read_card",
    "read_kinds",
    "read_templates",
    "read_tokenizer",
    "save",
    "write_templates",
]
