"""Expected scores: at each score of a critique, the mean over all scores that could stand there.

A critique ends in integers that were drawn, and a drawn integer does not say how likely the others were. The expected score is
sum_v v P(v) / sum_v P(v) over the integers v of the range, where everything before the score is taken as it was drawn. P is the
model's own distribution, that of temperature 1, whatever the temperature that critiques are drawn at.

P(v) is the probability of the tokens that spell v at this place. Which these are depends on the tokenizer: "10" is one piece or
two, and a brace, a space or a comma can be in one piece with a digit. So the text from the last gap before the score to the
first gap after it (see `Tokenizer.separates`) is tokenised with each v in turn, and v is spelt by the tokens up to the one that
holds its last digit. If one spelling begins another, as "1" does "1", "0", then P(1) = P("1") - P("1", "0"): a 1 that becomes
10 is no 1. Other spellings of v do not count, nor does what else follows its last digit.

Nothing is sampled for this. The tokens by which spellings begin are *contexts*. A context that the critique itself goes through
is a position in it; for any other one (after "1", if 8 was drawn) there is a branch of its own, which ends in a token that can
come next. Critiques and such branches share the prompt's trunk and are read in one pass.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from spct_jax import models
from spct_jax.data.batches import Groups
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.models import decoder
from spct_jax.models.config import ModelConfig

Tokens = tuple[int, ...]

CONTEXTS = 16
"""Contexts of a row whose logits exist at once."""


class Place(NamedTuple):
    """Where a critique has a score."""

    start: int
    """How many tokens of the critique come before all that depends on the score."""
    spellings: Mapping[int, Tokens]
    """By score, the tokens from there on."""

    @property
    def contexts(self) -> dict[Tokens, list[int]]:
        """By beginning of a spelling, the tokens that can come next."""
        found: dict[Tokens, dict[int, None]] = {}
        for spelling in self.spellings.values():
            for end, token in enumerate(spelling):
                found.setdefault(spelling[:end], {})[token] = None
        return {context: list(following) for context, following in found.items()}


class Query(NamedTuple):
    """A context in which probabilities of tokens are wanted."""

    branch: int
    """Index of the branch."""
    position: int
    """How many of the branch's tokens are in the context."""
    place: int
    """Index of the place."""
    context: Tokens
    following: list[int]
    """The tokens."""


def find_places(
    tokenizer: Tokenizer, tokens: Sequence[int], spans: Sequence[tuple[int, int]], low: int, high: int
) -> list[Place]:
    """The places of a completion's scores.

    Args:
      tokenizer: of the model.
      tokens: the completion.
      spans: of the integers in the decoded text; see `parse.spans`.
      low, high: the range of a score.
    """
    text, found = tokenizer.decode(tokens), []
    firsts, lasts = ({str(score)[end] for score in range(low, high + 1)} for end in (0, -1))
    for first, last in spans:
        start = next(x for x in range(first, -1, -1) if _is_gap(tokenizer, text[:x], firsts if x == first else text[x : x + 1]))
        end = next(
            x for x in range(last, len(text) + 1) if _is_gap(tokenizer, lasts if x == last else text[:x], text[x : x + 1])
        )
        spellings = _spell(tokenizer, text[start:first], text[last:end], low, high)
        found.append(Place(_tokens_before(tokenizer, tokens, text, start), spellings))
    return found


def _is_gap(tokenizer: Tokenizer, before: str | set[str], after: str | set[str]) -> bool:
    """Whether no token can span two texts; of a set of characters, whichever of them is there."""
    before = before[-1:] if isinstance(before, str) else before
    return all(tokenizer.separates(a, b) for a in before for b in after)


@functools.lru_cache(maxsize=4096)
def _spell(tokenizer: Tokenizer, lead: str, tail: str, low: int, high: int) -> Mapping[int, Tokens]:
    """By score, its tokens between two texts, those of `lead` included, up to its last digit."""
    found = {}
    for score in range(low, high + 1):
        tokens, length = tuple(tokenizer.encode(f"{lead}{score}{tail}")), len(f"{lead}{score}")
        stop = next(t for t in range(1, len(tokens) + 1) if len(tokenizer.decode(tokens[:t])) >= length)
        found[score] = tokens[:stop]
    return found


def _tokens_before(tokenizer: Tokenizer, tokens: Sequence[int], text: str, character: int) -> int:
    """How many tokens come before a character that begins a token; the last place of several where a token has no text."""
    if not character:
        return 0
    for t in range(len(tokens), 0, -1):
        if tokenizer.decode(tokens[t:]) == text[character:] and tokenizer.decode(tokens[:t]) == text[:character]:
            return t
    raise ValueError(f"no token begins at character {character}")


def plan(tokens: Sequence[int], places: Sequence[Place]) -> tuple[list[list[int]], list[Query]]:
    """What has to be read for a completion's expected scores.

    Returns:
      (the branches: the completion, then beginnings of it that go on otherwise; the contexts on them, numbered from 0, each
      followed by a token of its branch).
    """
    branches, queries = [list(tokens)], []
    for number, place in enumerate(places):
        for context, following in place.contexts.items():
            at = place.start + len(context)
            drawn = tuple(tokens[place.start : at]) == context
            if not drawn:
                branches.append([*tokens[: place.start], *context, following[0]])
            queries.append(Query(0 if drawn else len(branches) - 1, at, number, context, following))
    return branches, queries


def mean(place: Place, logprobs: Mapping[Tokens, Mapping[int, float]]) -> float:
    """The expected score.

    Args:
      place: where.
      logprobs: by context, the log-probability of each token that can come next.
    """
    totals = {
        spelling: math.fsum(logprobs[spelling[:end]][token] for end, token in enumerate(spelling))
        for spelling in place.spellings.values()
    }
    peak = max(totals.values())
    whole = {spelling: math.exp(total - peak) for spelling, total in totals.items()}
    scores, weights = [], []
    for score, spelling in place.spellings.items():
        longer = math.fsum(whole[one] for one in _direct_extensions(spelling, whole))
        scores.append(score)
        weights.append(max(whole[spelling] - longer, 0.0))
    return math.fsum(s * w for s, w in zip(scores, weights, strict=True)) / math.fsum(weights)


def _direct_extensions(spelling: Tokens, spellings: Mapping[Tokens, Any]) -> list[Tokens]:
    """The spellings that begin with another one, but not those that begin with one of them in turn."""
    longer = [other for other in spellings if len(other) > len(spelling) and other[: len(spelling)] == spelling]
    return [one for one in longer if not any(len(o) < len(one) and one[: len(o)] == o for o in longer)]


def context_logprobs(
    params: Any,
    config: ModelConfig,
    trunk: models.Trunk,
    groups: Groups,
    branches: jax.Array,
    positions: jax.Array,
    tokens: jax.Array,
) -> jax.Array:
    """Log-probabilities of given tokens in given contexts, at temperature 1.

    Args:
      params: the model's parameters.
      config: the architecture.
      trunk: of B prompts.
      groups: G branches of each; prompts are not read.
      branches: Int[B S], the branch that each of S contexts is on.
      positions: Int[B S], how many of its tokens are in the context; less than T.
      tokens: Int[B S A], those asked for.

    Returns:
      Float32[B S A].
    """
    hidden = models.extend(params, config, trunk, groups.inputs[:, :, :-1])
    rows, table = jnp.arange(hidden.shape[0])[:, None], decoder.output_table(params, config)
    hidden = hidden[rows, branches, positions]

    def split(x):
        return jnp.moveaxis(x.reshape(x.shape[0], -1, min(CONTEXTS, x.shape[1]), *x.shape[2:]), 1, 0)

    def read(chunk):
        hidden, tokens = chunk
        logits = decoder.unembed_with(table, config, hidden)
        return jnp.take_along_axis(logits, tokens, axis=-1) - jax.nn.logsumexp(logits, axis=-1, keepdims=True)

    return jnp.moveaxis(lax.map(read, (split(hidden), split(tokens))), 0, 1).reshape(tokens.shape)
