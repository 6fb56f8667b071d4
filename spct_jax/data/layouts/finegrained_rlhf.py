"""FineGrainedRLHF: four answers to a question about given passages, compared pair by pair."""

import itertools
from collections.abc import Iterator, Sequence

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.layouts.base import Layout, LeftOut, Row, text
from spct_jax.errors import InputError

_PAIRS = tuple(itertools.combinations(range(4), 2))
"""In the order of the field `preference`."""


def _comparisons(row: Row, id: str) -> Iterator[Comparison | LeftOut]:
    votes = row.get("preference")
    if not isinstance(votes, Sequence) or len(votes) != len(_PAIRS) or not all(vote in (0, 1, 2) for vote in votes):
        raise InputError(f"preference is not a list of six 0, 1 or 2 ({votes!r})")
    query, answers = _query(row), [text(row, f"prediction {i}") for i in (1, 2, 3, 4)]
    won = [0] * 4
    for (first, second), vote in zip(_PAIRS, votes, strict=True):
        if vote:
            won[first if vote == 1 else second] += 1
    if max(won) < 3:
        yield LeftOut("no unique best response")
    else:
        yield Comparison(conversation=[Turn("user", query)], responses=answers, scores=won, id=id)


def _query(row: Row) -> str:
    """The passages, each under its title, then the question."""
    passages = row.get("passages")
    if not isinstance(passages, Sequence) or not all(isinstance(p, Sequence) and len(p) for p in passages):
        raise InputError("passages is not a list of passages")
    parts = []
    for title, *sentences in passages:
        if not all(isinstance(item, str) for item in (title, *sentences)):
            raise InputError("a passage is not a list of strings")
        body = " ".join(sentence.strip() for sentence in sentences)
        parts.append(body if body.startswith(title) else f"{title}\n\n{body}")
    return "\n\n".join([*parts, text(row, "question")])


LAYOUT = Layout(
    name="finegrained_rlhf",
    row='{"question", "passages", "prediction 1" to "prediction 4", "preference": one of 0, 1, 2 for each of six pairs}; '
    "a response's score is the number of others that it beats",
    ties="left out unless one response beats each of the other three",
    licence="Apache-2.0",
    columns=("question", "passages", "prediction 1", "prediction 2", "prediction 3", "prediction 4", "preference"),
    comparisons=_comparisons,
)
