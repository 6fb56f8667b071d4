"""What every benchmark is made of: items, answers to them, and columns of credits that are averaged with given weights.

A benchmark is one file that says how to read its items from its published files and what each answer earns. An *answer* is an
item together with the votes on it, whoever's they are. A *block* holds the credits of one kind of answer: one column of
numbers per rule, one row per answer, and the weight of each subset in each aggregate. The columns `official`, `paper` and
`strict` mean the same everywhere:

- `official`: what the benchmark's own code gives;
- `paper`: the SPCT paper's rule, a choice at random among the t responses that tie for best, so 1/t in expectation; an answer
  that could not be read ties all of them (section 5.1, appendix D.2);
- `strict`: 1 where the best response beats every other and 0 otherwise.

Everything a block says is linear in its credits, except what it lists under `statistics` (an area under a curve, an F1).
"""

import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from spct_jax.data.comparison import Comparison
from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation.recorded import GAMES, Vote, totals
from spct_jax.grm import voting


@dataclasses.dataclass(frozen=True)
class Item:
    """One thing to judge.

    Attributes:
        id: unique in the benchmark.
        n: how many responses it has; 1 where a single response is judged right or wrong.
        best: the index of the right response; None where there is none.
        subset: the part of the benchmark it counts in.
        label: what else the metric needs, JSON; each benchmark says what.
        comparison: what to show a judge; None where only recorded votes are at hand, or where its text cannot be judged.
        pairs: which responses (winner, loser) are compared where the item is judged by pairs; the best one with every other
            unless a benchmark says otherwise.
        unjudgeable: why there is nothing to show a judge, where the data's text is at fault. The item counts all the same.
        reference: an answer known to be right, where the data has one. A judge is shown it only if it is asked for, see
            `conditions`.
    """

    id: str
    n: int
    best: int | None = None
    subset: str = ""
    label: Any = None
    comparison: Comparison | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    unjudgeable: str = ""
    reference: str | None = None

    def __post_init__(self):
        if not self.pairs and self.n > 2 and self.best is not None:
            losers = (index for index in range(self.n) if index != self.best)
            object.__setattr__(self, "pairs", tuple((self.best, loser) for loser in losers))

    @property
    def has_equal_responses(self) -> bool:
        """Whether two responses that should differ, one better than the other, are the same text."""
        texts = () if self.comparison is None else self.comparison.responses
        pairs = self.pairs or ([(0, 1)] if self.n == 2 else ())
        return bool(texts) and any(texts[i] == texts[j] for i, j in pairs)


@dataclasses.dataclass(frozen=True)
class Answer:
    """An item and the votes on it.

    Attributes:
        item: what was judged.
        votes: on all its responses.
        by_pair: on each of its pairs instead; then there are no others.
        by_game: those of the game with the responses as given and of the one with them swapped, where these are not just the
            votes in either order; see `games`.
    """

    item: Item
    votes: tuple[Vote, ...] = ()
    by_pair: Mapping[tuple[int, int], tuple[Vote, ...]] | None = None
    by_game: tuple[tuple[Vote, ...], tuple[Vote, ...]] | None = None

    @functools.cached_property
    def totals(self) -> tuple[float, ...] | None:
        """Each response's total over the votes; None where none could be read, or where it was judged by pairs."""
        return totals(self.votes, self.item.n)

    @functools.cached_property
    def means(self) -> tuple[float, ...] | None:
        """The totals divided by the number of votes that could be read; None as for these.

        To be compared with those of other items, since their votes need not all be readable either.
        """
        count = sum(vote.valid for vote in self.votes)
        return None if self.totals is None else tuple(total / count for total in self.totals)

    def compare(self, i: int, j: int) -> int | None:
        """1 where response i is preferred to j, -1 for the other way round, 0 for a tie, None where it could not be read."""
        found = self.totals if self.by_pair is None else totals(self.by_pair[i, j], 2)
        if found is None:
            return None
        a, b = found if self.by_pair is not None else (found[i], found[j])
        return (a > b) - (a < b)

    @property
    def decides(self) -> bool:
        """Whether its votes only choose and have no scores, be it that none of them could be read."""
        return any(vote.decides for vote in self.all_votes)

    @property
    def all_votes(self) -> tuple[Vote, ...]:
        """The votes on the item, or on all of its pairs."""
        return self.votes if self.by_pair is None else tuple(vote for votes in self.by_pair.values() for vote in votes)

    @functools.cached_property
    def ties(self) -> float:
        """1 where several responses share the highest total, else 0; where pairs are what counts, the share that tie."""
        if self.by_pair is None and (self.item.best is not None or not self.item.pairs):
            return float(voting.is_tie(self.totals))
        return float(np.mean([self.compare(*pair) == 0 for pair in self.item.pairs]))

    @property
    def expected(self) -> float:
        """The paper's credit; by pairs, the chance that the best one wins all of its pairs, ties broken at random."""
        if self.by_pair is None:
            return voting.expected_credit(self.totals, self.item.best, self.item.n)
        return float(np.prod([even_credit(self.compare(*pair)) for pair in self.item.pairs]))

    @property
    def strict(self) -> float:
        """1 where the best response beats every other, else 0."""
        others = (index for index in range(self.item.n) if index != self.item.best)
        return float(all(self.compare(self.item.best, other) == 1 for other in others))

    def games(self) -> tuple["Answer | None", "Answer | None"]:
        """The answers of the game with the responses as given and of the one with them swapped; None for one not played.

        Votes without an order are the two games in turn. A single one is both: a scalar reward model sees no order.
        """
        if self.by_game is None and len(self.votes) == 1 and self.votes[0].order is None:
            return self, self
        played = self.by_game or split_games(self.votes)
        first, second = (dataclasses.replace(self, votes=votes, by_game=None) if votes else None for votes in played)
        return first, second


def split_games(votes: Sequence[Vote]) -> tuple[tuple[Vote, ...], tuple[Vote, ...]]:
    """Votes that saw two responses as given, and those that saw them swapped; without an order they are either in turn."""
    found: tuple[list[Vote], list[Vote]] = ([], [])
    for index, vote in enumerate(votes):
        found[(vote.order or GAMES[index % 2]) != GAMES[0]].append(vote)
    return tuple(found[0]), tuple(found[1])


def even_credit(outcome: int | None) -> float:
    """What a pair earns that is won (1), lost (-1), tied (0) or could not be read (None), ties and those earning a half."""
    return 0.5 if outcome is None else (1 + outcome) / 2


Weights = Mapping[str, float]
"""Of subsets; they sum to 1."""


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A figure that is no weighted mean of credits.

    Attributes:
        aggregate: its row in the table of figures.
        column: its column.
        rows: which rows of the block it is of, by subset, so that a bootstrap draws within subsets.
        value: the figure for any of these rows, given as indices Int[R], with repetition; NaN where it is not defined.
    """

    aggregate: str
    column: str
    rows: Sequence[np.ndarray]
    value: Callable[[np.ndarray], float]


@dataclasses.dataclass(frozen=True)
class Block:
    """The credits of R answers (or of R pairs, or whatever a benchmark counts).

    Attributes:
        subsets: R names.
        columns: Float[R] for each rule.
        aggregates: the weights of the subsets in each aggregate; an aggregate of absent subsets is left out.
        statistics: figures that are not linear.
        items: R numbers, where several credits may be of one item; a bootstrap draws items, each with all that it has.
    """

    subsets: Sequence[str]
    columns: Mapping[str, np.ndarray]
    aggregates: Mapping[str, Weights]
    statistics: Sequence[Statistic] = ()
    items: Sequence[int] | None = None


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """How a benchmark is read and scored.

    Attributes:
        name: for the command line.
        title: for people.
        licence: of its data, and what a user should know of it.
        data: which published files `read` takes, in a sentence.
        metric: its official metric, in a sentence.
        read: `read(path, on_bad, report)` gives its items from the user's copy of them.
        blocks: the credits of the answers, in blocks; the first aggregate of the first is the headline.
        best_first: whether the right response comes first by convention, so that recorded votes need not say which it is.
        responses: how many an item has; what is assumed of recorded votes that do not show it.
        fixed: whether every item has exactly so many.
        pairs: which responses are compared where that is the same for every item; see `Item.pairs`.
        by_pairs: whether its usual protocol shows a judge two responses at a time, and not all of an item's.
        by_ending: whether `read` takes the files in a directory by the endings of their names, as those of an output have, too.
        quantity: what its figures are, for titles.
        rules: what the columns `official`, `paper` and `strict` mean where that is not what they mean everywhere.
        complete: gives an item that recorded votes were read with, without the data, what its label says of it; raises
            InputError where what the metric needs is missing.
    """

    name: str
    title: str
    licence: str
    data: str
    metric: str
    read: Callable[[str | os.PathLike, OnBad, ReadReport], list[Item]]
    blocks: Callable[[Sequence[Answer]], list[Block]]
    best_first: bool = False
    responses: int = 2
    fixed: bool = True
    pairs: tuple[tuple[int, int], ...] = ()
    by_pairs: bool = False
    by_ending: bool = False
    quantity: str = "accuracy"
    rules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    complete: Callable[[Item], Item] = lambda item: need_best(item)


def as_pairs(items: Iterable[Item]) -> list[Item]:
    """Items of two responses each in place of those of more; pair (i, j) of item a is item a/i-j, the winner first."""
    made = []
    for item in items:
        made += [_pair(item, pair) for pair in dict.fromkeys(item.pairs)] if item.n > 2 else [item]
    return made


def pair_id(id: str, pair: tuple[int, int]) -> str:
    """The id of a pair of an item's responses."""
    return f"{id}/{pair[0]}-{pair[1]}"


def _pair(item: Item, pair: tuple[int, int]) -> Item:
    id, shown = pair_id(item.id, pair), item.comparison
    if shown is not None:
        shown = dataclasses.replace(shown, responses=tuple(shown.responses[index] for index in pair), scores=None, id=id)
    return Item(id, 2, 0, item.subset, comparison=shown, unjudgeable=item.unjudgeable)


TWO_GAMES = {"official": "what the benchmark's own code gives for two games; none where some item was seen in one order only"}
"""Rules of a benchmark whose metric is of both."""


def need_best(item: Item) -> Item:
    """The same item; InputError unless it is known which response is the right one."""
    if item.best is None:
        raise InputError("no 'best', the index of the right response")
    return item


def best_by(*labels: Any) -> Callable[[Item], Item]:
    """Completes an item of two responses by its label, the data's: the first of these means the first response is right."""

    def complete(item: Item) -> Item:
        if item.label in labels and not isinstance(item.label, bool):
            best = labels.index(item.label)
            if item.best not in (None, best):
                raise InputError(f"'best' is {item.best}, and by its label {item.label!r} it is {best}")
            item = dataclasses.replace(item, best=best)
        return need_best(item)

    return complete


def standard(answers: Sequence[Answer]) -> dict[str, np.ndarray]:
    """The columns `paper` and `strict`, Float64[R]."""
    return {
        "paper": np.array([answer.expected for answer in answers]),
        "strict": np.array([answer.strict for answer in answers]),
    }


def micro(subsets: Iterable[str], counts: Mapping[str, int] | None = None) -> dict[str, float]:
    """Weights by size: by that of each subset as it is, or by the counts given; subsets that are absent weigh nothing."""
    sizes = Counter(subsets)
    # Sorted, since it is in this order that figures are added up, and a set has another in each process.
    weights = {subset: sizes[subset] if counts is None else counts[subset] for subset in sorted(sizes)}
    total = sum(weights.values())
    return {subset: weight / total for subset, weight in weights.items()}


def mean_of(parts: Sequence[Weights]) -> dict[str, float]:
    """The weights of the unweighted mean of several aggregates."""
    merged: Counter = Counter()
    for part in parts:
        for subset, weight in part.items():
            merged[subset] += weight / len(parts)
    return dict(merged)


def macro(subsets: Iterable[str]) -> dict[str, float]:
    """The same weight for every subset."""
    return mean_of([{subset: 1.0} for subset in sorted(set(subsets))])
