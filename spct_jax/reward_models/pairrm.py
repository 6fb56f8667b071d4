"""PairRM (the paper's pairwise baseline, Eq. 5): one scalar for two responses in a row, positive if the first is better.

The conversation is the trunk, and every ordered pair of responses is a branch: both answers, one after the other, each closed
by the end of a turn. Read in both orders, a pair gives S(a, b) - S(b, a), which changes its sign with the order of a and b by
construction.
"""

import dataclasses
import itertools
import os
from collections.abc import Sequence

import numpy as np

from spct_jax.checkpoints import ModelKind
from spct_jax.data.batches import TokenGroup
from spct_jax.data.comparison import Comparison
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.reward_models.base import Scores
from spct_jax.reward_models.bradley_terry import encode_conversation, encode_responses
from spct_jax.reward_models.scalar import ScalarModel
from spct_jax.sharding import Layout


def encode(tokenizer: Tokenizer, comparison: Comparison, pairs: Sequence[tuple[int, int]]) -> TokenGroup:
    """The tokens of the conversation, and those of each pair of responses, given by their indices in the order shown."""
    responses = encode_responses(tokenizer, comparison)
    return encode_conversation(tokenizer, comparison), [[*responses[a], *responses[b]] for a, b in pairs]


@dataclasses.dataclass(frozen=True, eq=False)
class PairRM:
    """A `reward_models.base.RewardModel`; deterministic, so there is nothing to vote on."""

    model: ScalarModel

    @classmethod
    def load(cls, checkpoint: str | os.PathLike, layout: Layout | None = None) -> "PairRM":
        """As of `ScalarModel.load`."""
        return cls(ScalarModel.load(checkpoint, ModelKind.PAIRRM, layout))

    def score(self, comparisons: Sequence[Comparison]) -> list[Scores]:
        """The mean of S(i, j) - S(j, i) over all other responses j; None for a single response, which has no pair.

        Errors as of `ScalarModel.rewards`.
        """
        pairs = [list(itertools.permutations(range(c.n), 2)) for c in comparisons]
        several = [(c, shown) for c, shown in zip(comparisons, pairs, strict=True) if shown]
        rewards = iter(self.model.rewards([encode(self.model.tokenizer, c, shown) for c, shown in several]))
        return [
            Scores(c.id, _scores(c.n, shown, next(rewards)) if shown else None)
            for c, shown in zip(comparisons, pairs, strict=True)
        ]


def _scores(n: int, pairs: Sequence[tuple[int, int]], rewards: Sequence[float]) -> tuple[float, ...]:
    table = np.zeros((n, n))
    table[tuple(np.transpose(pairs))] = rewards
    return tuple(((table - table.T).sum(axis=1) / (n - 1)).tolist())
