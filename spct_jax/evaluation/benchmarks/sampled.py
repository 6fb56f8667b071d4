"""Prompts with many sampled responses, each right or wrong: conflict pairs and best-of-K, for the benchmarks made of such.

An item's label is {"scores": whether each response is right, "pairs": [[i, j], ..] of which one is right and the other wrong}.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import base
from spct_jax.evaluation.recorded import LARGEST

KS = (1, 2, 4, 8, 16, 32, 64)


def winners_first(right: Sequence[Any], pairs: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """The pairs, the right response first; InputError for one of responses that are both right or both wrong, or not there.

    It is one, too, where there are no pairs, or where what says which responses are right is no usual number.
    """
    if not all(isinstance(score, int | float) and abs(score) <= LARGEST for score in right):
        raise InputError(f"scores are not all numbers that can be compared ({right!r:.60})")
    if not pairs:
        raise InputError("no pairs of a right and a wrong response")
    made = []
    for pair in pairs:
        whole = isinstance(pair, Sequence) and all(isinstance(index, int) for index in pair)
        if not whole or len(pair) != 2 or not all(0 <= index < len(right) for index in pair):
            raise InputError(f"a pair is not of two of {len(right)} responses ({pair!r})")
        i, j = pair
        if right[i] == right[j]:
            raise InputError(f"the responses of a pair are both {'right' if right[i] else 'wrong'} ({[i, j]})")
        made.append((i, j) if right[i] > right[j] else (j, i))
    return tuple(made)


def complete(item: base.Item) -> base.Item:
    """An item whose pairs follow from its label; one of two responses is a pair by itself and needs to know the right one."""
    if item.label is None and item.n == 2:
        return base.need_best(item)
    right, pairs = (item.label.get(name) if isinstance(item.label, dict) else None for name in ("scores", "pairs"))
    if not all(isinstance(one, list) for one in (right, pairs)) or not all(isinstance(score, int | float) for score in right):
        raise InputError('no \'label\' of {"scores": [..], "pairs": [[i, j], ..]}')
    if len(right) != item.n:
        raise InputError(f"the label scores {len(right)} of {item.n} responses")
    return dataclasses.replace(item, best=None, pairs=winners_first(right, pairs))


def blocks(answers: Sequence[base.Answer], domains: Sequence[str] = ()) -> list[base.Block]:
    """Accuracy on conflict pairs and, where whole items are scored, the expected truth of the best of k responses.

    Args:
        answers: on whole items, on their pairs, or on items of two responses.
        domains: whose plain mean is the headline where all of them are there; else it is the mean over all pairs.
    """
    pairs = [
        (index, answer.item.subset, answer.compare(*pair))
        for index, answer in enumerate(answers)
        for pair in (answer.item.pairs or ((answer.item.best, 1 - answer.item.best),))
    ]
    items, subsets, outcomes = zip(*pairs, strict=True)
    strict = np.array([float(outcome == 1) for outcome in outcomes])
    paper = np.array([base.even_credit(outcome) for outcome in outcomes])
    names = {subset: {subset: 1.0} for subset in sorted(set(subsets))}
    overall = {"Overall": base.macro(subsets)} if domains and set(domains) == set(subsets) else {}
    aggregates = overall | {"all pairs": base.micro(subsets)} | names
    found = [base.Block(subsets, {"official": strict, "paper": paper, "strict": strict}, aggregates, items=items)]
    whole = [answer for answer in answers if answer.by_pair is None and answer.item.n > 2]
    if len(whole) == len(answers) > 0:
        found.append(_best_of_k(whole, domains))
    return found


def _best_of_k(answers: Sequence[base.Answer], domains: Sequence[str]) -> base.Block:
    """Columns `best_of_k`, `end_score` (all responses), and `max_score`, the highest point of a domain's curve."""
    curves = [expected_truth(answer.totals, answer.item.label["scores"]) for answer in answers]
    least = min(map(len, curves))
    curve = np.array([one[:least] for one in curves])
    columns = {f"best_of_{k}": curve[:, k - 1] for k in KS if k <= least}
    columns["end_score"] = np.array([one[-1] for one in curves])
    subsets = np.array([answer.item.subset for answer in answers], dtype=object)
    present = sorted(set(subsets))
    rows = {subset: np.flatnonzero(subsets == subset) for subset in present}
    statistics = [
        base.Statistic(subset, "max_score", [rows[subset]], lambda drawn: float(curve[drawn].mean(0).max()))
        for subset in present
    ]
    aggregates = {subset: {subset: 1.0} for subset in present}
    if domains and set(domains) == set(present):
        aggregates = {"Overall": base.macro(present)} | aggregates

        def mean_of_maxima(drawn: np.ndarray) -> float:
            return float(np.mean([curve[drawn[subsets[drawn] == subset]].mean(0).max() for subset in present]))

        statistics.insert(0, base.Statistic("Overall", "max_score", [rows[subset] for subset in present], mean_of_maxima))
    return base.Block(list(subsets), columns, aggregates, statistics)


def expected_truth(rewards: Sequence[float] | None, truth: Sequence[float]) -> np.ndarray:
    """Float64[K]: for k = 1 .. K, the expected truth of the response with the highest reward among k drawn of the K.

    Drawn without replacement; ties are broken at random. Without rewards all tie.
    """
    total = len(truth)
    rewards = np.zeros(total) if rewards is None else np.asarray(rewards, float)
    truth = np.asarray(truth, float)
    expected, below = np.zeros(total), 0
    for reward in np.unique(rewards):
        group = rewards == reward
        upto = below + int(group.sum())
        share = [(math.comb(upto, k) - math.comb(below, k)) / math.comb(total, k) for k in range(1, total + 1)]
        expected += truth[group].mean() * np.array(share)
        below = upto
    return expected
