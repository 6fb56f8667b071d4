"""What differs from one decoder family to the next, gathered in one object, and the tensors that many of them share."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from spct_jax.checkpoints.leaves import TreePath
from spct_jax.models.config import ModelConfig

TEXT_PREFIXES = ("model.language_model.", "language_model.model.", "model.", "language_model.")
"""What writers put before the names of a text decoder's tensors; the first that fits counts."""
VISION_PREFIXES = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
"""How the names begin of what a multimodal model has besides its text decoder."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One of our parameters, of a layer or outside the layers, as Hugging Face's files hold it.

    Attributes:
      name: theirs, without prefix.
      shape: theirs.
      from_hf: makes our array of theirs, as a view.
      to_hf: makes their array of ours, as a view.
    """

    name: str
    shape: tuple[int, ...]
    from_hf: Callable[[np.ndarray], np.ndarray] = lambda x: x
    to_hf: Callable[[np.ndarray], np.ndarray] = lambda x: x


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array of a layer as Google's Orbax checkpoints hold it, which may be several of our parameters.

    Attributes:
      name: theirs, without `layer_i/` before it and `/w` after it.
      shapes: those it may have.
      split: makes our arrays of theirs, as views, by their paths inside the layer.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    split: Callable[[np.ndarray], dict[TreePath, np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """A decoder family; the code that reads and writes checkpoints knows families by this object alone."""

    model_type: str
    """In `config.json`."""
    multimodal_types: tuple[str, ...] = ()
    """Model types whose `text_config` describes a decoder of this family."""
    causal_lm: str
    """The class of transformers that computes a policy."""
    classifier: str
    """The class of transformers that computes a decoder with a score head."""

    fixed: Mapping[str, Any]
    """Fields of `ModelConfig` that are the same in all models of this family and tell it from the others."""
    defaults: Mapping[str, Any]
    """Fields that a `config.json` may leave out, with the values that they then have (transformers' own defaults)."""
    null_fields: tuple[str, ...] = ()
    """Fields of `config.json` whose null is a value; anywhere else null means that the field is left out."""
    read_fields: Callable[[Mapping[str, Any]], dict[str, Any]]
    """From the fields of `config.json` to those of `ModelConfig` that not all families have; raises InputError on what a
    model of ours would not compute."""
    write_fields: Callable[[ModelConfig], dict[str, Any]]
    """The way back; raises InputError where no model of the family computes what this one does."""

    layer_tensors: Callable[[ModelConfig, int], dict[TreePath, Tensor]]
    """The tensors of a layer, by the paths of our parameters inside the layer."""
    prefixes: tuple[str, ...] = TEXT_PREFIXES
    """Read before the names of tensors."""
    prefix: str = "model."
    """Written before the names of tensors, except those of heads."""
    ignored: tuple[str, ...] = VISION_PREFIXES
    """How the names of tensors begin that are passed over."""
    layers: str = "layers"
    """Stands before the number of a layer."""
    embedding: str = "embed_tokens.weight"
    final_norm: str = "norm.weight"
    lm_head: str = "lm_head.weight"
    score_head: str = "score.weight"

    google_arrays: Callable[[ModelConfig, Collection[str]], list[StoredArray]] | None = None
    """The arrays of a layer in Google's layout, given the names that the layer has in a checkpoint. None: not supported."""
    tokenizer_config: Mapping[str, Any]
    """`tokenizer_config.json`, for a model that brings none."""


def attention_tensors(config: ModelConfig) -> dict[TreePath, Tensor]:
    """The four projections of attention, as most families name and shape them."""
    D, N, K, H = config.width, config.num_heads, config.num_kv_heads, config.head_dim

    def heads(name: str, count: int) -> Tensor:
        return Tensor(
            f"self_attn.{name}.weight",
            (count * H, D),
            lambda x: x.reshape(count, H, D).transpose(2, 0, 1),
            lambda x: x.transpose(1, 2, 0).reshape(count * H, D),
        )

    return {
        ("attn", "q"): heads("q_proj", N),
        ("attn", "k"): heads("k_proj", K),
        ("attn", "v"): heads("v_proj", K),
        ("attn", "out"): Tensor(
            "self_attn.o_proj.weight",
            (D, N * H),
            lambda x: x.reshape(D, N, H).transpose(1, 2, 0),
            lambda x: x.transpose(2, 0, 1).reshape(D, N * H),
        ),
    }


def mlp_tensors(config: ModelConfig) -> dict[TreePath, Tensor]:
    """The three matrices of a gated feed-forward layer, as most families name and shape them."""
    D, F = config.width, config.ffw_width
    shapes = {"gate": (F, D), "up": (F, D), "down": (D, F)}
    return {
        ("mlp", ours): Tensor(f"mlp.{ours}_proj.weight", shape, np.transpose, np.transpose) for ours, shape in shapes.items()
    }
