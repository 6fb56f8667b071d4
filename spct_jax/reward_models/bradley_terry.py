"""Bradley-Terry (the paper's BTRM baseline, Eq. 4): one scalar for each response, by itself, after the conversation.

The conversation is the trunk and the n responses are its branches, in the model's own chat format: a response is scored as the
model's next turn, at the token that ends it. No response sees another.
"""

import dataclasses
import os
from collections.abc import Sequence

from spct_jax.checkpoints import ModelKind
from spct_jax.data.batches import TokenGroup
from spct_jax.data.comparison import Comparison, Turn, check_alternation
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.template import ROLE_LABELS
from spct_jax.reward_models.base import Scores
from spct_jax.reward_models.scalar import ScalarModel
from spct_jax.sharding import Layout


def encode(tokenizer: Tokenizer, comparison: Comparison) -> TokenGroup:
    """The tokens of the conversation, and those of each response."""
    return encode_conversation(tokenizer, comparison), encode_responses(tokenizer, comparison)


def encode_conversation(tokenizer: Tokenizer, comparison: Comparison) -> list[int]:
    """The tokens of the conversation, ready for an answer."""
    return tokenizer.encode_turns(chat_turns(comparison))


def chat_turns(comparison: Comparison) -> tuple[Turn, ...]:
    """The conversation as turns of a chat format; one that no chat format has becomes a single turn that names the speakers."""
    try:
        check_alternation(comparison.conversation)
    except InputError:
        lines = (f"{ROLE_LABELS[turn.role]}: {turn.content}" for turn in comparison.conversation)
        return (Turn("user", "\n".join(lines)),)
    return comparison.conversation


def encode_responses(tokenizer: Tokenizer, comparison: Comparison) -> list[list[int]]:
    """The tokens of each response as an answer, closed by the end of the turn."""
    return [tokenizer.encode_completion(response.strip()) for response in comparison.responses]


@dataclasses.dataclass(frozen=True, eq=False)
class BradleyTerry:
    """A `reward_models.base.RewardModel`; deterministic, so there is nothing to vote on."""

    model: ScalarModel

    @classmethod
    def load(cls, checkpoint: str | os.PathLike, layout: Layout | None = None) -> "BradleyTerry":
        """As of `ScalarModel.load`; also a sequence classifier of Hugging Face's with one label."""
        return cls(ScalarModel.load(checkpoint, ModelKind.BTRM, layout))

    def score(self, comparisons: Sequence[Comparison]) -> list[Scores]:
        """As of `RewardModel.score`; errors as of `ScalarModel.rewards`."""
        rewards = self.model.rewards([encode(self.model.tokenizer, comparison) for comparison in comparisons])
        return [Scores(c.id, tuple(row)) for c, row in zip(comparisons, rewards, strict=True)]
