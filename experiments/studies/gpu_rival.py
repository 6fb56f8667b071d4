"""Transformers' Gemma-2 at given sizes and lengths, with random weights in bfloat16, for `gpu_check.py`."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rival_samplers import ATTENTION, drawn_by_transformers

from spct_jax.models.config import ModelConfig

MICRO_BATCH = 4
"""Completions whose gradients are computed at once."""


def measure(
    model: ModelConfig, prompt: int, completion: int, samples: int, update: tuple[int, int, int]
) -> Iterator[tuple[str, Any]]:
    """What is found, by name: drawing `samples` completions of a prompt, and the gradients of an update.

    `update` is (completions, tokens of a prompt, tokens of a completion). Each completion has its prompt before it, and there
    is no optimiser. A part that fails gives its error.
    """
    import torch
    import transformers

    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    wait = torch.cuda.synchronize if cuda else (lambda: None)
    yield "versions", {"torch": torch.__version__, "transformers": transformers.__version__}
    torch.manual_seed(0)
    with torch.device(device):
        gemma = transformers.Gemma2ForCausalLM(_config(model)).to(torch.bfloat16)
    with _error(found := {}):
        found |= _drawing(gemma.eval(), prompt, completion, samples, wait)
    yield "drawing", found
    with _error(found := {}):
        found |= _gradients(gemma.train(), *update, wait)
    yield "gradients", found
    if cuda:
        yield "peak_gb", torch.cuda.max_memory_allocated() / 1e9


@contextlib.contextmanager
def _error(found: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"[:400]


def _config(model: ModelConfig) -> Any:
    import transformers

    return transformers.Gemma2Config(
        vocab_size=model.vocab_size,
        hidden_size=model.width,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        num_key_value_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        intermediate_size=model.ffw_width,
        sliding_window=model.window,
        query_pre_attn_scalar=round(model.query_scale**-2),
        attn_logit_softcapping=model.attn_softcap,
        final_logit_softcapping=model.final_softcap,
        max_position_embeddings=8192,
        eos_token_id=None,
        pad_token_id=0,
        attn_implementation=ATTENTION,
    )


def _seconds(run: Callable[[], Any], wait: Callable[[], None]) -> float:
    """Of the second call."""
    run()
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def _drawing(gemma: Any, prompt: int, completion: int, samples: int, wait: Callable[[], None]) -> dict[str, float]:
    ids = np.random.default_rng(0).integers(3, gemma.config.vocab_size, prompt + 1).tolist()

    def draw(new: int) -> None:
        out = drawn_by_transformers(gemma, ids, samples, new)
        assert out.shape == (samples, new), out.shape

    few, many = _seconds(lambda: draw(2), wait), _seconds(lambda: draw(completion), wait)
    step = (many - few) / (completion - 2)
    return {
        "seconds": many,
        "seconds_of_two_tokens": few,
        "ms_per_token": 1e3 * step,
        "tokens_per_second": samples / step,
        "tokens_per_second_with_trunks": samples * completion / many,
    }


def _gradients(gemma: Any, completions: int, prompt: int, completion: int, wait: Callable[[], None]) -> dict[str, float]:
    import torch

    gemma.gradient_checkpointing_enable()
    rows = min(MICRO_BATCH, completions)
    ids = torch.randint(3, gemma.config.vocab_size, (rows, prompt + completion), device=gemma.device)

    def learn() -> None:
        logits = gemma(ids, use_cache=False, logits_to_keep=completion + 1).logits[:, :-1].float()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, -completion:].flatten()).backward()
        gemma.zero_grad(set_to_none=True)

    seconds = _seconds(learn, wait) * completions / rows
    return {"seconds_of_update": seconds, "tokens_per_second": completions * (prompt + completion) / seconds}
