"""Decoder families, one file each: what their `config.json` says and what their tensors are called.

To add a family, write its file and put its object into `FAMILIES`.
"""

from collections.abc import Mapping
from typing import Any

from spct_jax.checkpoints.families.base import Family, StoredArray, Tensor
from spct_jax.checkpoints.families.gemma2 import GEMMA2
from spct_jax.checkpoints.families.gemma3 import GEMMA3
from spct_jax.errors import InputError
from spct_jax.models.config import ModelConfig

__all__ = ["FAMILIES", "Family", "StoredArray", "Tensor", "family_of", "find_text_config"]

FAMILIES: tuple[Family, ...] = (GEMMA2, GEMMA3)


def family_of(config: ModelConfig) -> Family:
    """The family whose fixed fields an architecture has; InputError if no family does."""
    for family in FAMILIES:
        if all(getattr(config, name) == value for name, value in family.fixed.items()):
            return family
    raise InputError(f"no family of decoders has this architecture; there are {', '.join(f.model_type for f in FAMILIES)}")


def find_text_config(top: Mapping[str, Any]) -> tuple[Family, Mapping[str, Any]]:
    """The family that a `config.json` names, and the part of the file that describes the text decoder.

    Raises:
      InputError: the file's `model_type` is none that we read.
    """
    named = top.get("model_type")
    for family in FAMILIES:
        if named == family.model_type:
            return family, top
        if named in family.multimodal_types:
            return family, top.get("text_config") or {}
    *others, last = [name for family in FAMILIES for name in (family.model_type, *family.multimodal_types)]
    raise InputError(f"model_type {named!r} is not supported; {', '.join(others)} and {last} are")
