"""The kinds of model that a checkpoint can hold, and what follows from the kind."""

import enum
import functools
from typing import Any

import jax

from spct_jax.models import decoder, heads
from spct_jax.models.config import ModelConfig


class ModelKind(enum.Enum):
    """What a checkpoint holds; the values are the words of `model.json` and of messages."""

    POLICY = "policy"
    """A decoder that writes text: the tree of `models.init`."""
    META_RM = "meta_rm"
    """Rates critiques. This and all kinds below are decoders with a score head: {"model": the tree of `models.init`, "head":
    that of `models.init_score_head`}."""
    BTRM = "btrm"
    """Scores responses one by one (Bradley-Terry)."""
    PAIRRM = "pairrm"
    """Compares two responses."""
    CLOUD = "cloud"
    """Scores responses one by one, each with a critique of it."""

    def __str__(self) -> str:
        return self.value

    @property
    def has_head(self) -> bool:
        """Whether it is a decoder with a score head."""
        return self is not ModelKind.POLICY

    @property
    def decoder_path(self) -> tuple[str, ...]:
        """Where the decoder stands in the tree of parameters."""
        return ("model",) if self.has_head else ()


def abstract_params(config: ModelConfig, kind: ModelKind = ModelKind.POLICY) -> Any:
    """Shapes and dtypes of a model's parameters, without making them."""
    model, head = jax.tree.map(lambda x: x, _abstract(config))  # dictionaries of the caller's own
    return {"model": model, "head": head} if kind.has_head else model


@functools.cache
def _abstract(config: ModelConfig) -> tuple[Any, Any]:
    """Of a decoder and of a score head; to trace a decoder takes as long as to read a small one."""
    key = jax.random.key(0)
    return jax.eval_shape(lambda: (decoder.init(config, key), heads.init_score_head(config, key)))
