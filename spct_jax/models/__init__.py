"""The decoder: its architecture and sizes, trunks and branches, decoding, log-probabilities and heads.

Parameters are plain trees of arrays and all functions are pure: `prefill` reads prompts into a `Trunk`, `extend` and `decode`
continue it by branches; to train, `extend` takes `Prompts` and computes their trunks beside the branches. What a trunk and a
branch are, and the letters of shapes, are in `spct_jax.models.decoder`.
"""

import importlib
from typing import Any

from spct_jax.models.config import ModelConfig
from spct_jax.models.decoder import Params, Prompts, Trunk, check_tokens, extend, init, logits, prefill, unembed
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
    "Prompts",
    "Trunk",
    "check_tokens",
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
    # Imported on use: the package of checkpoints is built on this one.
    if name in ("load_hf", "save_hf"):
        return getattr(importlib.import_module("spct_jax.checkpoints.hugging_face"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
