"""Gemma-2."""

from collections.abc import Collection, Mapping
from typing import Any

from spct_jax.checkpoints.families import json_fields
from spct_jax.checkpoints.families.base import Family, StoredArray, Tensor, attention_tensors, mlp_tensors
from spct_jax.checkpoints.leaves import TreePath
from spct_jax.errors import InputError
from spct_jax.models.config import ModelConfig

_TANH_GELU = "gelu_pytorch_tanh"
_NORMS = {
    "pre_attention_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "pre_ffw_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
"""Ours (and Google's) -> Hugging Face's."""
SOFTCAPS = ("attn_logit_softcapping", "final_logit_softcapping")
DEFAULTS = {
    "vocab_size": 256_000,
    "num_hidden_layers": 26,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "sliding_window": 4096,
    "sliding_window_pattern": 2,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
TOKENIZER_CONFIG = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "tokenizer_class": "GemmaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
    "clean_up_tokenization_spaces": False,
}


def read_fields(fields: Mapping[str, Any], local_base: float | None = None) -> dict[str, Any]:
    """As of `Family.read_fields`; `local_base` as of `json_fields.read_ropes`."""
    json_fields.refuse(fields, ("attention_bias", "mlp_bias", "use_bidirectional_attention"))
    # Early files say hidden_act "gelu" and mean its tanh form; where hidden_activation is given, it counts.
    activation = fields.get("hidden_activation", _TANH_GELU)
    legacy = fields.get("hidden_act", _TANH_GELU) if "hidden_activation" not in fields else _TANH_GELU
    if activation != _TANH_GELU:
        raise InputError(f"hidden_activation {activation!r} is not supported; {_TANH_GELU} is")
    if legacy not in (_TANH_GELU, "gelu"):
        raise InputError(f"hidden_act {legacy!r} is not supported; {_TANH_GELU} is")
    return json_fields.read_ropes(fields, local_base) | {
        "pattern": json_fields.read_pattern(fields),
        "window": fields["sliding_window"],
        "query_scale": float(fields["query_pre_attn_scalar"]) ** -0.5,
        "attn_softcap": float(fields["attn_logit_softcapping"] or 0),
        "final_softcap": float(fields["final_logit_softcapping"] or 0),
    }


def write_common_fields(config: ModelConfig) -> dict[str, Any]:
    """The fields of `config.json` that Gemma-2 and Gemma-3 share and other families lack."""
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": config.attn_softcap or None,
        "final_logit_softcapping": config.final_softcap or None,
        "hidden_activation": _TANH_GELU,
        "layer_types": json_fields.write_layer_types(config),
        "query_pre_attn_scalar": json_fields.exact(config.query_scale**-2),
        "rope_theta": config.rope_base_global,
        "sliding_window": config.window,
    }


def write_fields(config: ModelConfig) -> dict[str, Any]:
    """As of `Family.write_fields`."""
    if config.rope_scale_global != 1 or config.rope_base_local != config.rope_base_global:
        raise InputError("Gemma2 has one rope for all layers; this model has two and cannot be written as one")
    return write_common_fields(config)


def layer_tensors(config: ModelConfig, layer: int) -> dict[TreePath, Tensor]:
    """As of `Family.layer_tensors`; all layers are alike."""
    norms = {(ours, "scale"): Tensor(f"{theirs}.weight", (config.width,)) for ours, theirs in _NORMS.items()}
    return attention_tensors(config) | mlp_tensors(config) | norms


def google_arrays(config: ModelConfig, names: Collection[str]) -> list[StoredArray]:
    """As of `Family.google_arrays`; queries, keys and values lie in one array or in two, by what the names say."""
    D, F, N, K, H = config.width, config.ffw_width, config.num_heads, config.num_kv_heads, config.head_dim

    def heads(ours: tuple[str, ...], arrays) -> dict:
        return {("attn", name): x.transpose(1, 0, 2) for name, x in zip(ours, arrays, strict=True)}

    def gate_and_up(x) -> dict:
        # With F = D the shape does not tell the orientation; no published size has that.
        gate, up = x if x.shape == (2, D, F) else x.swapaxes(1, 2)
        return {("mlp", "gate"): gate, ("mlp", "up"): up}

    fused = [StoredArray("attn/qkv_einsum", ((3, N, D, H),), lambda x: heads(("q", "k", "v"), x))]
    apart = [
        StoredArray("attn/q_einsum", ((N, D, H),), lambda x: heads(("q",), [x])),
        StoredArray("attn/kv_einsum", ((2, K, D, H),), lambda x: heads(("k", "v"), x)),
    ]
    return [
        *(fused if "attn/qkv_einsum" in names else apart),
        StoredArray("mlp/gating_einsum", ((2, F, D), (2, D, F)), gate_and_up),
        StoredArray("attn/attn_vec_einsum", ((N, H, D),), lambda x: {("attn", "out"): x}),
        StoredArray("mlp/linear", ((F, D),), lambda x: {("mlp", "down"): x}),
        *(StoredArray(f"{norm}/scale", ((D,),), lambda x, norm=norm: {(norm, "scale"): x}) for norm in _NORMS),
    ]


GEMMA2 = Family(
    model_type="gemma2",
    causal_lm="Gemma2ForCausalLM",
    classifier="Gemma2ForSequenceClassification",
    fixed={"qk_norm": False},
    defaults=DEFAULTS,
    null_fields=SOFTCAPS,
    read_fields=read_fields,
    write_fields=write_fields,
    layer_tensors=layer_tensors,
    google_arrays=google_arrays,
    tokenizer_config=TOKENIZER_CONFIG,
)
