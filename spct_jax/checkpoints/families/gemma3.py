"""Gemma-3, the text decoder: Gemma-2 with normalised queries and keys, and other rotary positions in global layers."""

from collections.abc import Collection, Mapping
from typing import Any

from spct_jax.checkpoints.families import gemma2
from spct_jax.checkpoints.families.base import Family, StoredArray, Tensor
from spct_jax.checkpoints.leaves import TreePath
from spct_jax.models.config import ModelConfig

_QK_NORMS = {"q_norm": "_query_norm", "k_norm": "_key_norm"}
"""Ours (and Hugging Face's) -> Google's."""


def read_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """As of `Family.read_fields`."""
    return gemma2.read_fields(fields, fields["rope_local_base_freq"])


def write_fields(config: ModelConfig) -> dict[str, Any]:
    """As of `Family.write_fields`."""
    scaling = {"factor": config.rope_scale_global, "rope_type": "linear"}
    return gemma2.write_common_fields(config) | {
        "rope_local_base_freq": config.rope_base_local,
        "rope_scaling": scaling if config.rope_scale_global != 1 else None,
        "sliding_window_pattern": len(config.pattern),
    }


def layer_tensors(config: ModelConfig, layer: int) -> dict[TreePath, Tensor]:
    """As of `Family.layer_tensors`."""
    norms = {("attn", name, "scale"): Tensor(f"self_attn.{name}.weight", (config.head_dim,)) for name in _QK_NORMS}
    return gemma2.layer_tensors(config, layer) | norms


def google_arrays(config: ModelConfig, names: Collection[str]) -> list[StoredArray]:
    """As of `Family.google_arrays`."""
    return gemma2.google_arrays(config, names) + [
        StoredArray(f"attn/{theirs}/scale", ((config.head_dim,),), lambda x, ours=ours: {("attn", ours, "scale"): x})
        for ours, theirs in _QK_NORMS.items()
    ]


GEMMA3 = Family(
    model_type="gemma3_text",
    multimodal_types=("gemma3",),
    causal_lm="Gemma3ForCausalLM",
    classifier="Gemma3TextForSequenceClassification",
    fixed={"qk_norm": True},
    defaults=gemma2.DEFAULTS
    | {
        "vocab_size": 262_208,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 131_072,
    },
    null_fields=gemma2.SOFTCAPS,
    read_fields=read_fields,
    write_fields=write_fields,
    layer_tensors=layer_tensors,
    google_arrays=google_arrays,
    tokenizer_config=gemma2.TOKENIZER_CONFIG,
)
