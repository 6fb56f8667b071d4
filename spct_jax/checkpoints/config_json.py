"""Hugging Face's `config.json`, read and written; what it says of a family is in `families`.

What is written is understood by older and newer transformers, and by vLLM.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from spct_jax.checkpoints import families
from spct_jax.checkpoints.families import Family
from spct_jax.checkpoints.model_kind import ModelKind
from spct_jax.errors import InputError
from spct_jax.models.config import MOST_LAYERS, ModelConfig
from spct_jax.storage import files

_SAME = {
    "vocab_size": "vocab_size",
    "num_hidden_layers": "num_layers",
    "hidden_size": "width",
    "intermediate_size": "ffw_width",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
}
"""Fields that every family has and that mean the same as ours: theirs -> ours."""
KIND = "reward_model"
"""Our own field, which transformers passes over: what a sequence classifier scores, in the words of `ModelKind`."""


class Described(NamedTuple):
    """What a `config.json` says."""

    config: ModelConfig
    kinds: tuple[ModelKind, ...]
    """What the weights can be: a sequence classifier whose file does not say is a reward model of any kind."""
    family: Family


def read_config(path: str | os.PathLike, dtype: str = "float32") -> Described:
    """Reads `config.json`.

    Args:
      path: the file.
      dtype: of the activations; the file's own does not count.

    Returns:
      The architecture, what the weights can be, and the family.

    Raises:
      InputError: the model is not one that we compute; the message names the field.
    """
    top = files.read_json(path)
    try:
        config, family = _read_architecture(top, dtype)
        kinds = _read_kinds(top)
        # A classifier's files hold no table for the words of an answer, whether the decoder they come from had one or not.
        return Described(dataclasses.replace(config, tied=config.tied or kinds[0].has_head), kinds, family)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise InputError(f"{path}: a field has a value of the wrong type ({error})") from None


def _read_kinds(top: Mapping[str, Any]) -> tuple[ModelKind, ...]:
    names = top.get("architectures") or ["CausalLM"]
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise InputError(f"architectures is {names!r}, not a list of names")
    if not names[0].endswith("ForSequenceClassification"):
        return (ModelKind.POLICY,)
    labels = len(top["id2label"]) if "id2label" in top else top.get("num_labels", 2)
    if labels != 1:
        raise InputError(f"num_labels is {labels}; a scalar reward model has 1")
    with_head = tuple(kind for kind in ModelKind if kind.has_head)
    if KIND not in top:
        return with_head
    found = tuple(kind for kind in with_head if kind.value == top[KIND])
    if not found:
        raise InputError(f"{KIND} is {top[KIND]!r}, none of {', '.join(map(str, with_head))}")
    return found


def _read_architecture(top: Mapping[str, Any], dtype: str) -> tuple[ModelConfig, Family]:
    family, text = families.find_text_config(top)
    given = {name: value for name, value in text.items() if value is not None or name in family.null_fields}
    fields = dict(family.defaults) | given
    if top.get("quantization_config"):
        raise InputError("quantization_config: quantised weights are not supported")
    layers = fields["num_hidden_layers"]
    if type(layers) is not int or not 1 <= layers <= MOST_LAYERS:  # before as many are listed
        raise InputError(f"num_hidden_layers is {layers!r}, not a whole number from 1 to {MOST_LAYERS:,}")
    read = {ours: fields[theirs] for theirs, ours in _SAME.items() if theirs in fields} | {
        "norm_eps": float(fields["rms_norm_eps"]),
        "max_positions": fields["max_position_embeddings"],
        "tied": top.get("tie_word_embeddings", fields["tie_word_embeddings"]),
        "dtype": dtype,
    }
    return ModelConfig(**read | dict(family.fixed) | family.read_fields(fields)), family


def write_config(config: ModelConfig, kind: ModelKind, dtype: str, tokens: Mapping[str, int]) -> dict[str, Any]:
    """The content of `config.json`.

    Args:
      config: the architecture.
      kind: what the weights are.
      dtype: of the weights.
      tokens: ids of `bos_token_id` and the like, copied in.

    Raises:
      InputError: no model of a family that we know computes what this one does.
    """
    family = families.family_of(config)
    fields = {theirs: getattr(config, ours) for theirs, ours in _SAME.items()} | {
        "dtype": dtype,
        "max_position_embeddings": config.max_positions or family.defaults["max_position_embeddings"],
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    fields |= family.write_fields(config)
    architecture = family.classifier if kind.has_head else family.causal_lm
    names = {"architectures": [architecture], "model_type": family.model_type}
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, KIND: kind.value} if kind.has_head else {}
    return names | dict(sorted(fields.items())) | labels | dict(tokens)
