"""The Bradley-Terry reward model (the paper's baseline DeepSeek-BTRM): one scalar per response, trained on pairs.

It starts from the policy before it, and learns from all training comparisons of several responses; a comparison's responses are
branches of its conversation, so each is computed once for all its pairs.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spct_jax.data.comparison import Comparison
from spct_jax.reward_models import bradley_terry
from spct_jax.training import preference
from spct_jax.training.context import Run


def margins(
    rewards: Float[Array, "B G"], labels: Float[Array | np.ndarray, "B G"]
) -> tuple[Float[Array, "B G"], Float[Array, "B G"]]:
    """The best response's reward less every other's; a label is 1 for the best, -1 for another, 0 for none."""
    best = jnp.where(labels > 0, rewards, 0).sum(-1, keepdims=True)
    return best - rewards, jax.lax.convert_element_type(labels < 0, jnp.float32)


def labels(comparison: Comparison) -> list[float]:
    """Those of a comparison's responses."""
    return [1.0 if i == comparison.best else -1.0 for i in range(comparison.n)]


def run_btrm(run: Run) -> dict[str, Any]:
    """Trains a Bradley-Terry reward model."""
    tokenizer = run.prompter.tokenizer

    def make(number: int, comparison: Comparison, step: int):
        return functools.partial(bradley_terry.encode, tokenizer, comparison), labels(comparison)

    def lengths(comparison: Comparison) -> tuple[int, int]:
        conversation, responses = bradley_terry.encode(tokenizer, comparison)
        return len(conversation), max(map(len, responses))

    max_prompt, max_completion = preference.longest(run, "btrm", lengths)
    shape = preference.GroupShape(max_prompt, max_completion, group_size=int(run.dataset.responses.max()))
    numbers = preference.compared(run, "btrm")
    return preference.train(run, "btrm", run.config.btrm, numbers, shape, preference.Objective(margins), make)
