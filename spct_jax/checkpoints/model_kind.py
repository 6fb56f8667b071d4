"""The two kinds of model that a checkpoint can hold, and what follows from the kind."""

import enum
from typing import Any

import jax

from spct_jax.models import decoder, heads
from spct_jax.models.config import ModelConfig


class ModelKind(enum.Enum):
    """What a checkpoint holds; the values are the words of `model.json` and of messages."""

    POLICY = "policy"
    """A decoder that writes text: the tree of `models.init`."""
    META_RM = "meta_rm"
    """A decoder with a score head: {"model": the tree of `models.init`, "head": that of `models.init_score_head`}."""

    def __str__(self) -> str:
        return self.value

    @property
    def decoder_path(self) -> tuple[str, ...]:
        """Where the decoder stands in the tree of parameters."""
        return () if self is ModelKind.POLICY else ("model",)


def abstract_params(config: ModelConfig, kind: ModelKind = ModelKind.POLICY) -> Any:
    """Shapes and dtypes of a model's parameters, without making them."""
    key = jax.random.key(0)
    params = jax.eval_shape(lambda: decoder.init(config, key))
    if kind is ModelKind.POLICY:
        return params
    return {"model": params, "head": jax.eval_shape(lambda: heads.init_score_head(config, key))}
