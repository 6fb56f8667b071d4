"""Position bias: what the place at which a response is shown does to its scores, and the order of all to the winner.

Figures are about single votes, each of which saw the responses in one order, except `consistent`, which is about sums of votes.
A vote whose best score is shared by t responses names each of them with a chance of 1/t.
"""

import collections
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from spct_jax.evaluation import recorded
from spct_jax.evaluation.benchmarks.base import Answer
from spct_jax.evaluation.recorded import Vote
from spct_jax.grm import voting


def figures(answers: Iterable[Answer]) -> dict[str, Any] | None:
    """Position-bias figures; None where no vote on several responses can be read or says in which order it saw them.

    Returns:
      `wins_by_position`: for each number of responses n, how often the response at each position is named: n shares that add up
        to 1. A judge without bias names each position with 1/n where orders are drawn whatever the response is.
      `score_by_position`: likewise the mean score.
      `changes_with_order`: the chance that two votes on one item in different orders name different responses.
      `changes_in_order`: the same for two votes in one order, which differ by their randomness alone. What the first has more
        than this is the order's doing.
      `consistent`: the share of items on which the sums of the votes in each order name the same single response.
      `items`: how many items there are with two readable orders; the last but one is over those that also have two readable
        votes in one order. The three figures over them are None where there are none.
    """
    wins, scores = collections.defaultdict(list), collections.defaultdict(list)
    other, same, consistent = [], [], []
    for n, votes in _groups(answers):
        given = np.array([vote.points(n) for vote in votes], float)
        named = given == given.max(axis=1, keepdims=True)
        named = named / named.sum(axis=1, keepdims=True)
        places = np.array([vote.order for vote in votes])
        wins[n].append(np.take_along_axis(named, places, axis=1))
        scores[n].append(np.take_along_axis(given, places, axis=1))
        distinct, order, sizes = np.unique(places, axis=0, return_inverse=True, return_counts=True)
        order = order.reshape(-1)
        sums = np.zeros((len(distinct), n))
        np.add.at(sums, order, named)
        # Of the products of all pairs of votes, those of pairs in one order, each vote with itself left out.
        if pairs := np.sum(sizes * (sizes - 1)):
            same.append(1 - (np.square(sums).sum() - np.square(named).sum()) / pairs)
        if len(distinct) > 1:
            pairs = len(votes) ** 2 - np.square(sizes).sum()
            other.append(1 - (np.square(sums.sum(axis=0)).sum() - np.square(sums).sum()) / pairs)
            alone = ([vote for vote, own in zip(votes, order, strict=True) if own == index] for index in range(len(distinct)))
            tops = {voting.winners(recorded.totals(one, n)) for one in alone}
            consistent.append(len(tops) == 1 and len(tops.pop()) == 1)
    if not wins:
        return None
    return {
        "items": len(other),
        "changes_with_order": _mean(other),
        "changes_in_order": _mean(same),
        "consistent": _mean(consistent),
        "wins_by_position": {str(n): np.concatenate(wins[n]).mean(axis=0).tolist() for n in sorted(wins)},
        "score_by_position": {str(n): np.concatenate(scores[n]).mean(axis=0).tolist() for n in sorted(scores)},
    }


def _groups(answers: Iterable[Answer]) -> Iterable[tuple[int, Sequence[Vote]]]:
    """The votes on each item of several responses, or on each pair, that can be read and say what they saw."""
    for answer in answers:
        groups = [(answer.item.n, answer.votes)] if answer.by_pair is None else [(2, v) for v in answer.by_pair.values()]
        for n, votes in groups:
            usable = [vote for vote in votes if vote.valid and vote.order is not None]
            if n > 1 and usable:
                yield n, usable


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
