"""The pairwise reward model (the paper's DeepSeek-PairRM): one scalar for two responses, positive if the first is better.

It starts from the policy before it. Every pair is shown in an order that follows from (seed, step, id), and the pairs of a
comparison are branches of its conversation.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spct_jax.data.comparison import Comparison
from spct_jax.grm import orders
from spct_jax.reward_models import bradley_terry, pairrm
from spct_jax.training import preference
from spct_jax.training.context import Run


def margins(
    rewards: Float[Array, "B G"], labels: Float[Array | np.ndarray, "B G"]
) -> tuple[Float[Array, "B G"], Float[Array, "B G"]]:
    """The reward of each pair, with the sign turned where the second is better: a label is 1 or -1, 0 for no pair."""
    return rewards * labels, jax.lax.convert_element_type(labels != 0, jnp.float32)


def shuffled_pairs(comparison: Comparison, seed: int, step: int) -> tuple[list[tuple[int, int]], list[float]]:
    """The pairs of the best response with every other, each in a random order, and 1 or -1: whether the best is first."""
    best, pairs, labels = comparison.best, [], []
    for other in range(comparison.n):
        if other != best:
            first, _ = orders.random_order(2, seed, comparison.id, step, other)
            pairs.append((other, best) if first else (best, other))
            labels.append(-1.0 if first else 1.0)
    return pairs, labels


def run_pairrm(run: Run) -> dict[str, Any]:
    """Trains a pairwise reward model."""
    tokenizer = run.prompter.tokenizer

    def make(number: int, comparison: Comparison, step: int):
        pairs, labels = shuffled_pairs(comparison, run.config.seed, step)
        return functools.partial(pairrm.encode, tokenizer, comparison, pairs), labels

    def lengths(comparison: Comparison) -> tuple[int, int]:
        conversation, responses = bradley_terry.encode(tokenizer, comparison)
        return len(conversation), sum(sorted(map(len, responses))[-2:])

    max_prompt, max_completion = preference.longest(run, "pairrm", lengths)
    shape = preference.GroupShape(max_prompt, max_completion, group_size=max(int(run.dataset.responses.max()) - 1, 1))
    numbers = preference.compared(run, "pairrm")
    return preference.train(run, "pairrm", run.config.pairrm, numbers, shape, preference.Objective(margins), make)
