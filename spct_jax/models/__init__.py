"""The decoder, its sizes and its heads."""

import importlib
from typing import Any

from spct_jax.models.config import ModelConfig
from spct_jax.models.decoder import Params, Trunk, extend, init, logits, prefill, unembed
from spct_jax.models.decoding import Cache, decode, flush, init_cache
from spct_jax.models.heads import init_score_head, score
from spct_jax.models.logprobs import token_logprobs
from spct_jax.models.sizes import SIZES, get
from spct_jax.models.stack import unroll

__all__ = [
    "SIZES",
    "Cache",
    "ModelConfig",
    "Params",
    "Trunk",
    "decode",
    "extend",
    "flush",
    "get",
    "init",
    "init_cache",
    "init_score_head",
    "load_hf",
    "logits",
    "prefill",
    "save_hf",
    "score",
    "token_logprobs",
    "unembed",
    "unroll",
]


def __getattr__(name: str) -> Any:
    # Checkpoints are read a layer above; these two names are here for those who look for them beside the model.
    if name in ("load_hf", "save_hf"):
        return getattr(importlib.import_module("spct_jax.checkpoints.hugging_face"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
