"""Hugging Face's `config.json` of Gemma-2 and Gemma-3 text models, read and written.

Both styles are read: the hub's older one (`rope_theta`, `rope_local_base_freq`, `rope_scaling`, `sliding_window_pattern`) and
that of transformers 5 (`rope_parameters`, `layer_types`). What is written is understood by either.
"""

from __future__ import annotations

import os
from typing import Any

from spct_jax import files
from spct_jax.checkpoints.kinds import ModelKind
from spct_jax.errors import InputError
from spct_jax.models.config import LONGEST_PATTERN, MOST_LAYERS, ModelConfig

_KINDS = {"sliding_attention": "local", "full_attention": "global"}
_TANH_GELU = "gelu_pytorch_tanh"

# What a file leaves out has these values (transformers' own defaults; the hub's Gemma-3 files leave most of them out).
_COMMON = {
    "num_hidden_layers": 26,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
_DEFAULTS = {
    "gemma2": _COMMON
    | {
        "vocab_size": 256_000,
        "rope_theta": 10_000.0,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "sliding_window_pattern": 2,
        "max_position_embeddings": 8192,
    },
    "gemma3_text": _COMMON
    | {
        "vocab_size": 262_208,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 131_072,
    },
}


def read_config(path: str | os.PathLike, dtype: str) -> tuple[ModelConfig, ModelKind]:
    """Reads `config.json`.

    Args:
      path: the file.
      dtype: of the activations, a field of ours only.

    Returns:
      (the architecture, what the files hold); a sequence classifier with one label is a meta RM.

    Raises:
      InputError: the model is not one we compute; the message names the field.
    """
    top = files.read_json(path)
    try:
        return _architecture(top, dtype), _kind_of_model(top)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise InputError(f"{path}: a field has a value of the wrong type ({error})") from None


def _kind_of_model(top: dict[str, Any]) -> ModelKind:
    names = top.get("architectures") or ["CausalLM"]
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise InputError(f"architectures is {names!r}, not a list of names")
    if not names[0].endswith("ForSequenceClassification"):
        return ModelKind.POLICY
    labels = len(top["id2label"]) if "id2label" in top else top.get("num_labels", 2)
    if labels != 1:
        raise InputError(f"num_labels is {labels}; a scalar reward model has 1")
    return ModelKind.META_RM


def _architecture(top: dict[str, Any], dtype: str) -> ModelConfig:
    kind = top.get("model_type")
    text = top
    if kind == "gemma3":
        text, kind = top.get("text_config") or {}, "gemma3_text"
    if kind not in _DEFAULTS:
        raise InputError(f"model_type {kind!r} is not supported; gemma2, gemma3_text and gemma3 are")
    found = _DEFAULTS[kind] | {k: v for k, v in text.items() if v is not None or k.endswith("softcapping")}
    _refuse(found, top)
    layers = _checked_layers(found["num_hidden_layers"])
    ropes = _ropes(found, kind)
    return ModelConfig(
        vocab_size=found["vocab_size"],
        num_layers=layers,
        width=found["hidden_size"],
        num_heads=found["num_attention_heads"],
        num_kv_heads=found["num_key_value_heads"],
        head_dim=found["head_dim"],
        ffw_width=found["intermediate_size"],
        pattern=_pattern(found, layers),
        window=found["sliding_window"],
        rope_base_local=float(ropes["local"][0]),
        rope_base_global=float(ropes["global"][0]),
        rope_scale_global=float(ropes["global"][1]),
        query_scale=float(found["query_pre_attn_scalar"]) ** -0.5,
        attn_softcap=float(found["attn_logit_softcapping"] or 0),
        final_softcap=float(found["final_logit_softcapping"] or 0),
        qk_norm=kind == "gemma3_text",
        norm_eps=float(found["rms_norm_eps"]),
        max_positions=found["max_position_embeddings"],
        tied=top.get("tie_word_embeddings", found["tie_word_embeddings"]),
        dtype=dtype,
    )


def _checked_layers(layers: Any) -> int:
    """How many layers there are, before the kinds of so many are listed."""
    if type(layers) is not int or not 1 <= layers <= MOST_LAYERS:
        raise InputError(f"num_hidden_layers is {layers!r}, not a whole number from 1 to {MOST_LAYERS:,}")
    return layers


def _refuse(found: dict[str, Any], top: dict[str, Any]) -> None:
    """Raises on fields that would change what the model computes in a way ours does not."""
    for field in ("attention_bias", "mlp_bias", "use_bidirectional_attention"):
        if found.get(field):
            raise InputError(f"{field}={found[field]!r} is not supported")
    if top.get("quantization_config"):
        raise InputError("quantization_config: quantised weights are not supported")
    # Early files say hidden_act "gelu" and mean its tanh form; where hidden_activation stands it is what counts.
    activation = found.get("hidden_activation", _TANH_GELU)
    legacy = found.get("hidden_act", _TANH_GELU) if "hidden_activation" not in found else _TANH_GELU
    if activation != _TANH_GELU:
        raise InputError(f"hidden_activation {activation!r} is not supported; {_TANH_GELU} is")
    if legacy not in (_TANH_GELU, "gelu"):
        raise InputError(f"hidden_act {legacy!r} is not supported; {_TANH_GELU} is")


def _pattern(found: dict[str, Any], layers: int) -> tuple[str, ...]:
    """The shortest pattern whose repetition gives every layer its kind."""
    types = found.get("layer_types")
    if types is None:
        period = found.get("_sliding_window_pattern") or found["sliding_window_pattern"]
        if type(period) is not int or not 1 <= period <= LONGEST_PATTERN:
            raise InputError(f"sliding_window_pattern is {period!r}, not a whole number from 1 to {LONGEST_PATTERN}")
        return ("local",) * (period - 1) + ("global",)
    if not isinstance(types, list):
        raise InputError(f"layer_types is a {type(types).__name__}, not a list")
    if len(types) != layers:
        raise InputError(f"layer_types has {len(types)} entries for num_hidden_layers={layers}")
    unknown = [t for t in types if t not in _KINDS]
    if unknown:
        raise InputError(f"layer_types: {unknown[0]!r} is not supported")
    kinds = tuple(_KINDS[t] for t in types)
    period = next(p for p in range(1, layers + 1) if kinds == (kinds[:p] * layers)[:layers])
    if period > LONGEST_PATTERN:
        raise InputError(f"layer_types repeat after {period} layers; at most {LONGEST_PATTERN} are supported")
    return kinds[:period]


def _ropes(found: dict[str, Any], kind: str) -> dict[str, tuple[float, float]]:
    """(base, factor by which positions are divided) of local and global layers."""
    ropes = found.get("rope_parameters")
    if ropes is None:
        base = found["rope_theta"], _rope_factor(found.get("rope_scaling"), "rope_scaling")
        local = (found["rope_local_base_freq"], 1.0) if kind == "gemma3_text" else base
    elif "rope_theta" in ropes:
        base = local = ropes["rope_theta"], _rope_factor(ropes, "rope_parameters")
    else:
        base, local = (
            (ropes[name]["rope_theta"], _rope_factor(ropes[name], f"rope_parameters.{name}"))
            for name in ("full_attention", "sliding_attention")
        )
    if local[1] != 1:
        raise InputError("a rope factor for sliding_attention is not supported")
    return {"local": local, "global": base}


def _rope_factor(scaling: dict[str, Any] | None, field: str) -> float:
    if not scaling:
        return 1.0
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "linear"):
        raise InputError(f"{field}: rope type {kind!r} is not supported; default and linear are")
    return float(scaling.get("factor") or 1.0) if kind == "linear" else 1.0


def write_config(config: ModelConfig, kind: ModelKind, dtype: str, tokens: dict[str, int]) -> dict[str, Any]:
    """The content of `config.json`, in terms that older and newer transformers (and vLLM) read.

    Args:
      config: the architecture.
      kind: what the files hold.
      dtype: of the weights.
      tokens: ids of `bos_token_id` and the like, copied in.

    Raises:
      InputError: the architecture is neither Gemma-2 nor Gemma-3.
    """
    family = "Gemma3" if config.qk_norm else "Gemma2"
    scaled = config.rope_scale_global != 1 or config.rope_base_local != config.rope_base_global
    if family == "Gemma2" and scaled:
        raise InputError("Gemma2 has one rope for all layers; this model has two and cannot be written as one")
    head = "ForCausalLM" if kind is ModelKind.POLICY else "TextForSequenceClassification"
    if family == "Gemma2":
        head = head.removeprefix("Text")
    names = {ours: theirs for theirs, ours in _KINDS.items()}
    out = {
        "architectures": [family + head],
        "model_type": "gemma2" if family == "Gemma2" else "gemma3_text",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": config.attn_softcap or None,
        "dtype": dtype,
        "final_logit_softcapping": config.final_softcap or None,
        "head_dim": config.head_dim,
        "hidden_activation": _TANH_GELU,
        "hidden_size": config.width,
        "intermediate_size": config.ffw_width,
        "layer_types": [names[kind] for kind in config.layer_kinds],
        "max_position_embeddings": config.max_positions or (8192 if family == "Gemma2" else 131_072),
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "query_pre_attn_scalar": _exact(config.query_scale**-2),
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base_global,
        "sliding_window": config.window,
        "tie_word_embeddings": config.tied,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }
    if family == "Gemma3":
        linear = {"factor": config.rope_scale_global, "rope_type": "linear"}
        out["rope_local_base_freq"] = config.rope_base_local
        out["rope_scaling"] = linear if config.rope_scale_global != 1 else None
        out["sliding_window_pattern"] = len(config.pattern)
    if kind is ModelKind.META_RM:
        out |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return out | tokens


def _exact(value: float) -> float | int:
    """The integer a float came from, where it did."""
    return round(value) if abs(value - round(value)) < 1e-6 * value else value
