"""Models on disk: our directories, Hugging Face's layout, Google's, and the state of training."""

from spct_jax.checkpoints.directory import (
    COMPUTE,
    Model,
    check_finite,
    describe,
    first_not_finite,
    load,
    read_architecture,
    read_card,
    read_templates,
    read_tokenizer,
    save,
    write_templates,
)
from spct_jax.checkpoints.kinds import ModelKind, abstract_params

__all__ = [
    "COMPUTE",
    "Model",
    "ModelKind",
    "abstract_params",
    "check_finite",
    "describe",
    "first_not_finite",
    "load",
    "read_architecture",
    "read_card",
    "read_templates",
    "read_tokenizer",
    "save",
    "write_templates",
]
