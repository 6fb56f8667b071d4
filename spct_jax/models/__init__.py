"""The decoder, its sizes and its heads."""

from spct_jax.models.decoding import Cache, decode, flush, init_cache
from spct_jax.models.gemma import Params, Trunk, extend, init, logits, prefill, unembed, unrolled
from spct_jax.models.heads import init_score_head, score
from spct_jax.models.hf_weights import load_hf, save_hf
from spct_jax.models.likelihood import token_logprobs
from spct_jax.models.sizes import SIZES, ModelConfig, get

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
    "unrolled",
]
