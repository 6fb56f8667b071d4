"""LLM-as-a-Judge (the paper's baseline): it names the best response instead of scoring all, and votes count (Eq. 6, 13).

A policy learns to judge so in a run whose template is its choice template; `judging.judge.Judge` draws its critiques. Here is
TokenProb: how sure a judge was of the response it named. Where its critique ends in the number of a response, the model gave a
probability to every number that could have stood there; they weight the vote (after "generative verifiers", Zhang et al. 2025,
as the paper's baseline has it).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from spct_jax import models
from spct_jax.data.batches import Groups
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.grm import parse
from spct_jax.models.config import ModelConfig

ABSENT = -1
"""In place of a token id, where the tokenizer has no piece with that number."""


def locate(tokenizer: Tokenizer, tokens: Sequence[int], n: int) -> tuple[int, list[int]]:
    """At which token a completion names its choice, and which tokens would have named the other responses.

    Args:
      tokenizer: of the model.
      tokens: a completion whose last box holds the number of a response.
      n: responses.

    Returns:
      (the index of the token that ends the number, for each of the n responses the id of the token that would name it
      there, or `ABSENT`).
    """
    text = tokenizer.decode(tokens)
    ((start, end),) = parse.spans(text, 1)
    # From the end, where the box is, since every look takes longer the more tokens there are.
    position = next(t for t in range(len(tokens) - 1, -1, -1) if len(tokenizer.decode(tokens[:t])) < end)
    before, number, after = tokenizer.piece(tokens[position]).rpartition(text[start:end])
    if not number:
        return position, [ABSENT] * n
    found = (tokenizer.find(f"{before}{i}{after}") for i in range(1, n + 1))
    return position, [ABSENT if id is None else id for id in found]


def choice_probabilities(
    params: Any, config: ModelConfig, trunk: models.Trunk, groups: Groups, positions: jax.Array, candidates: jax.Array
) -> jax.Array:
    """Probabilities of the candidate tokens at one position of every completion, among each other.

    Args:
      params: the model's parameters.
      config: the architecture.
      trunk: of B prompts.
      groups: their completions; prompts are not read.
      positions: Int[B G], which token of the completion.
      candidates: Int[B G n], token ids; `ABSENT` ones have probability 0.

    Returns:
      Float32[B G n].
    """
    hidden = models.extend(params, config, trunk, groups.inputs[:, :, :-1])
    at = jnp.take_along_axis(hidden, positions[..., None, None], axis=2)[:, :, 0]
    logits = jnp.take_along_axis(models.unembed(params, config, at), jnp.maximum(candidates, 0), axis=-1)
    return jax.nn.softmax(logits, axis=-1, where=candidates != ABSENT)
