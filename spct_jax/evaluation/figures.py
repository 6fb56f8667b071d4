"""From recorded votes to the figures of a benchmark: joined with its items, cut to k votes, credited, averaged, resampled."""

import dataclasses
import functools
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from spct_jax.errors import InputError
from spct_jax.evaluation import bootstrap
from spct_jax.evaluation.benchmarks.base import Answer, Benchmark, Block, Item, Statistic, Weights, as_pairs, pair_id
from spct_jax.evaluation.recorded import Recorded


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
        tie_rate: the share of items of several responses (of pairs, where judged by pairs) that tie for best.
        malformed_rate: the share of votes that could not be read.
        truncated_rate: the share of votes cut at the limit of tokens; None where that was not recorded.
        unread: the number of items without any vote that could be read.
    """

    items: int
    table: dict[str, dict[str, Figure]]
    subsets: dict[str, dict[str, Figure]]
    sizes: dict[str, int]
    tie_rate: float
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
        answers: on all of its items; see `join` and `stand_alone`.
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
    truncated = [vote.truncated for vote in votes]
    comparable = [answer.ties for answer in answers if answer.item.n > 1]
    return {
        "tie_rate": float(np.mean(comparable)) if comparable else 0.0,
        "malformed_rate": sum(not vote.valid for vote in votes) / max(len(votes), 1),
        "truncated_rate": None if None in truncated or not truncated else sum(truncated) / len(truncated),
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


def most_votes(answers: Sequence[Answer]) -> int:
    """The largest k for which there are votes on every item."""
    counts = [answer.by_pair.values() if answer.by_pair is not None else (answer.votes,) for answer in answers]
    return min(len(votes) for group in counts for votes in group)


def join(items: Sequence[Item], recorded: Sequence[Recorded], path: str | os.PathLike) -> list[Answer]:
    """The items of a benchmark with the votes on them: on each item, or on each of its pairs (see `base.as_pairs`).

    Args:
        items: all of the benchmark.
        recorded: the votes, in any order.
        path: of the file they were read from, for errors. Its ids are the items', with or without the subset before them.

    Raises:
        InputError: naming the file and the id, where votes are on something else, are missing, or are on too few or too many
            responses.
    """
    by_id: dict[str, Recorded] = {}
    known = {id for item in items for id in (item.id, *(pair_id(item.id, pair) for pair in item.pairs))}
    for one in recorded:
        id = one.id if one.id in known else f"{one.subset}/{one.id}"
        if id not in known:
            raise InputError(f"{path}: scores of an unknown item ({one.id!r})")
        by_id[id] = one
    wanted: dict[str, int] = {}
    for item in items:
        whole = item.id in by_id or item.n <= 2 or not any(pair_id(item.id, pair) in by_id for pair in item.pairs)
        wanted |= {item.id: item.n} if whole else {pair_id(item.id, pair): 2 for pair in item.pairs}
    if surplus := by_id.keys() - wanted.keys():
        raise InputError(f"{path}: scores both of an item and of its pairs ({min(surplus)!r})")
    for id, n in wanted.items():
        if id not in by_id:
            raise InputError(f"{path}: no scores of an item ({id!r}; {len(wanted):,} are wanted, {len(by_id):,} are there)")
        _check_width(by_id[id], n, path)
    answers = []
    for item in items:
        if item.id in by_id:
            answers.append(Answer(item, by_id[item.id].votes))
        else:
            answers.append(Answer(item, by_pair={pair: by_id[pair_id(item.id, pair)].votes for pair in item.pairs}))
    return answers


def stand_alone(benchmark: Benchmark, recorded: Sequence[Recorded], path: str | os.PathLike) -> list[Answer]:
    """Answers made of recorded votes alone, where the benchmark's data is not at hand.

    The lines say what the data would: `n` where all rows are null or only decide, `best` unless the right response comes first
    by the benchmark's convention, and `label` where its metric needs one. Lines with ids of pairs (see `base.as_pairs`) are put
    together to items.

    Raises:
        InputError: naming the file and the id of a line that does not.
    """
    answers, pairs = [], {}
    for one in recorded:
        if named := _PAIR.fullmatch(one.id):
            pairs.setdefault((one.subset, named[1]), {})[int(named[2]), int(named[3])] = one
        else:
            answers.append(_alone(benchmark, one, path))
    for (subset, id), group in pairs.items():
        answers.append(_alone_by_pairs(benchmark, Recorded(id, (), subset), group, path))
    return answers


_PAIR = re.compile(r"(.+)/(\d+)-(\d+)")
"""The form of `base.pair_id`."""


def _alone(benchmark: Benchmark, one: Recorded, path: str | os.PathLike) -> Answer:
    try:
        item = benchmark.complete(_item(benchmark, one))
    except InputError as error:
        raise InputError(f"{path}: item {one.id!r}: {error}") from None
    _check_width(one, item.n, path)
    return Answer(item, one.votes)


def _alone_by_pairs(
    benchmark: Benchmark, one: Recorded, group: Mapping[tuple[int, int], Recorded], path: str | os.PathLike
) -> Answer:
    for pair in group.values():
        _check_width(pair, 2, path)
        if pair.line.get("best", 0) != 0:
            raise InputError(f"{path}: item {pair.id!r}: the first of a pair must be the better one")
    n = 1 + max(max(pair) for pair in group)
    item = Item(one.id, n, 0 if benchmark.best_first else None, one.subset, pairs=tuple(group))
    return Answer(item, by_pair={pair: votes.votes for pair, votes in group.items()})


def _item(benchmark: Benchmark, one: Recorded) -> Item:
    widths = [len(vote.scores) for vote in one.votes if vote.scores is not None]
    n = one.line.get("n", widths[0] if widths else benchmark.responses)
    if not isinstance(n, int) or n < 1:
        raise InputError(f"n is not a number of responses ({n!r})")
    best = one.line.get("best", 0 if benchmark.best_first else None)
    if best is not None and (isinstance(best, bool) or not isinstance(best, int) or not 0 <= best < n):
        raise InputError(f"best is not the index of one of {n} responses ({best!r})")
    return Item(one.id, n, best, one.subset, one.line.get("label"))


def _first(answer: Answer, k: int, k_meta: int | None) -> Answer:
    def first(votes):
        return Recorded("", votes).first(k, k_meta).votes

    by_pair = None if answer.by_pair is None else {pair: first(votes) for pair, votes in answer.by_pair.items()}
    return dataclasses.replace(answer, votes=first(answer.votes), by_pair=by_pair)


def _check_width(one: Recorded, n: int, path: str | os.PathLike) -> None:
    for vote in one.votes:
        if vote.scores is not None and len(vote.scores) != n:
            raise InputError(f"{path}: item {one.id!r}: a row of {len(vote.scores)} scores for {n} responses")
        if isinstance(vote.decision, int) and vote.decision >= max(n, 2):
            raise InputError(f"{path}: item {one.id!r}: decision {vote.decision} for {n} responses (they count from 0)")


def _add(block: Block, table: dict, subsets: dict, seed: int | None) -> None:
    names = np.array(block.subsets, dtype=object)
    present = sorted(set(block.subsets))
    rows = {subset: np.flatnonzero(names == subset) for subset in present}

    @functools.cache
    def draws(subset: str, column: str) -> np.ndarray:
        rng = np.random.default_rng([seed, present.index(subset)])
        return bootstrap.resampled_means(block.columns[column][rows[subset]], rng)

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
        table.setdefault(statistic.aggregate, {})[statistic.column] = _statistic(statistic, seed)


def _statistic(statistic: Statistic, seed: int | None, resamples: int = 400) -> Figure:
    value = float(statistic.value(np.concatenate(statistic.rows)))
    if seed is None:
        return Figure(value)
    rng = np.random.default_rng(seed)
    drawn = [
        statistic.value(np.concatenate([rng.choice(rows, len(rows)) for rows in statistic.rows])) for _ in range(resamples)
    ]
    return Figure(value, *bootstrap.percentiles(np.array(drawn)))
