"""From answers to the figures of a benchmark: cut to k votes, credited, averaged, resampled."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from spct_jax.evaluation import bootstrap, recorded
from spct_jax.evaluation.benchmarks.base import Answer, Benchmark, Block, Statistic, Weights, as_pairs, split_games
from spct_jax.evaluation.recorded import GAMES, Recorded, Vote


@dataclasses.dataclass(frozen=True)
class Figure:
    """One number and its 95 % bootstrap interval, over items drawn within their subsets; None where none was asked for."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Figures:
    """Everything that is said about one way of judging a benchmark.

    Attributes:
        items: how many items there are.
        table: aggregate -> column -> figure; the first aggregate is the headline, its column `official` the official metric.
        subsets: subset -> column -> figure.
        sizes: the number of rows in each subset.
        tie_rate: the share of items of several responses (of pairs, where judged by pairs) that tie for best; None where
            all have one.
        malformed_rate: the share of votes that could not be read.
        truncated_rate: the share of votes cut at the limit of tokens; None where that was not recorded.
        unread: the number of items without any vote that could be read.
    """

    items: int
    table: dict[str, dict[str, Figure]]
    subsets: dict[str, dict[str, Figure]]
    sizes: dict[str, int]
    tie_rate: float | None
    malformed_rate: float
    truncated_rate: float | None
    unread: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: a figure is {"value", "low", "high"}."""
        return dataclasses.asdict(self)


def compute(
    benchmark: Benchmark,
    answers: Sequence[Answer],
    k: int | None = None,
    k_meta: int | None = None,
    seed: int = 0,
    intervals: bool = True,
) -> Figures:
    """The figures of one way of judging.

    Args:
        benchmark: says what each answer earns.
        answers: on all of its items; see `matching`.
        k: how many votes on each item are used, the first ones; all of them where it is None.
        k_meta: how many of those, the ones that a meta RM trusts most; all where it is None.
        seed: of the resampling.
        intervals: whether figures have an interval.
    """
    answers = cut(answers, k, k_meta)
    table: dict[str, dict[str, Figure]] = {}
    subsets: dict[str, dict[str, Figure]] = {}
    sizes: Counter = Counter()
    for block in benchmark.blocks(answers):
        _add(block, table, subsets, seed if intervals else None)
        sizes |= Counter(block.subsets)
    return Figures(
        items=len(answers),
        table=table,
        subsets=dict(sorted(subsets.items())),
        sizes=dict(sorted(sizes.items())),
        **rates(answers),
        unread=sum(not any(vote.valid for vote in answer.all_votes) for answer in answers),
    )


def rates(answers: Sequence[Answer]) -> dict[str, float | None]:
    """`tie_rate`, `malformed_rate` and `truncated_rate` of `Figures`."""
    votes = [vote for answer in answers for vote in answer.all_votes]
    comparable = [answer.ties for answer in answers if answer.item.n > 1]
    return {
        "tie_rate": float(np.mean(comparable)) if comparable else None,
        "malformed_rate": recorded.malformed_rate(votes),
        "truncated_rate": recorded.truncated_rate(votes),
    }


def cut(answers: Sequence[Answer], k: int | None, k_meta: int | None = None) -> Sequence[Answer]:
    """The same with the first k votes on each item, or the k_meta of these that a meta RM trusts most; all where k is None."""
    return answers if k is None else [_first(answer, k, k_meta) for answer in answers]


def apart(answers: Iterable[Answer]) -> list[Answer]:
    """The same with an answer on each pair in place of one by pairs."""
    made = []
    for answer in answers:
        if answer.by_pair is None:
            made.append(answer)
        else:
            pairs = zip(dict.fromkeys(answer.item.pairs), as_pairs([answer.item]), strict=True)
            made += [Answer(item, answer.by_pair[pair]) for pair, item in pairs]
    return made


def most_votes(answers: Sequence[Answer], of: Callable[[Iterable[int]], int] = min) -> int:
    """The largest k for which there are votes on every item, or pair where it is judged by pairs; `max`: on any."""
    counts = [answer.by_pair.values() if answer.by_pair is not None else (answer.votes,) for answer in answers]
    return of(len(votes) for group in counts for votes in group)


def _first(answer: Answer, k: int, k_meta: int | None) -> Answer:
    def cut(votes: Sequence[Vote]) -> tuple[Vote, ...]:
        if answer.item.n == 2 and len(votes) > 1:  # else the first of two games would look like a single vote
            votes = [vote if vote.order else vote._replace(order=GAMES[index % 2]) for index, vote in enumerate(votes)]
        return Recorded("", tuple(votes)).first(k, k_meta).votes

    by_pair = None if answer.by_pair is None else {pair: cut(votes) for pair, votes in answer.by_pair.items()}
    games = None
    if k_meta is not None and answer.item.n == 2:
        games = tuple(_guided_game(votes, math.ceil(len(votes) * k_meta / k)) for votes in split_games(answer.votes[:k]))
    return dataclasses.replace(answer, votes=cut(answer.votes), by_pair=by_pair, by_game=games)


def _guided_game(votes: tuple[Vote, ...], k_meta: int) -> tuple[Vote, ...]:
    """The votes of one game that are trusted most; all where none can be read, since it was played all the same."""
    return (Recorded("", votes).first(len(votes), k_meta).votes if votes else ()) or votes


def _add(block: Block, table: dict, subsets: dict, seed: int | None) -> None:
    names = np.array(block.subsets, dtype=object)
    present = sorted(set(block.subsets))
    rows = {subset: np.flatnonzero(names == subset) for subset in present}

    @functools.cache
    def draws(subset: str, column: str) -> np.ndarray:
        rng = np.random.default_rng([seed, present.index(subset)])
        credits = block.columns[column][rows[subset]]
        if block.items is None:
            return bootstrap.resampled_means(credits, rng)
        return bootstrap.resampled_means_of_groups(credits, np.asarray(block.items)[rows[subset]], rng)

    for column, credits in block.columns.items():
        means = {subset: float(credits[rows[subset]].mean()) for subset in present}

        def figure(weights: Weights, column: str = column, means: dict[str, float] = means) -> Figure:
            value = sum(weight * means[subset] for subset, weight in weights.items())
            if seed is None:
                return Figure(value)
            drawn = sum(weight * draws(subset, column) for subset, weight in weights.items())
            return Figure(value, *bootstrap.percentiles(drawn))

        for subset in present:
            subsets.setdefault(subset, {})[column] = figure({subset: 1.0})
        for aggregate, weights in block.aggregates.items():
            table.setdefault(aggregate, {})[column] = figure(weights)
    for statistic in block.statistics:
        if not math.isnan((figure := _statistic(statistic, seed)).value):
            table.setdefault(statistic.aggregate, {})[statistic.column] = figure


def _statistic(statistic: Statistic, seed: int | None, resamples: int = 400) -> Figure:
    value = float(statistic.value(np.concatenate(statistic.rows)))
    if seed is None:
        return Figure(value)
    rng = np.random.default_rng(seed)
    drawn = [
        statistic.value(np.concatenate([rng.choice(rows, len(rows)) for rows in statistic.rows])) for _ in range(resamples)
    ]
    return Figure(value, *bootstrap.percentiles(np.array([one for one in drawn if not math.isnan(one)] or [value])))
