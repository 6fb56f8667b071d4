"""Answers made by hand, and the figures of a benchmark on them as plain numbers."""

import itertools
from typing import Any

from spct_jax.evaluation import figures
from spct_jax.evaluation.benchmarks import catalogue
from spct_jax.evaluation.benchmarks.base import Answer, Item
from spct_jax.evaluation.recorded import Vote

_NUMBERS = itertools.count()


def scored(best: int | None, *rows, n: int = 2, subset: str = "", label: Any = None, id: str = "", pairs=()) -> Answer:
    """An answer whose votes are rows of scores, None for one that could not be read."""
    item = Item(id or str(next(_NUMBERS)), n, best, subset, label, pairs=tuple(pairs))
    return Answer(item, tuple(Vote(row) for row in rows))


def decided(best: int | None, *decisions, n: int = 2, subset: str = "", label: Any = None) -> Answer:
    """An answer whose votes only decide."""
    return Answer(Item(str(next(_NUMBERS)), n, best, subset, label), tuple(Vote(decision=one) for one in decisions))


def table(name: str, *answers: Answer) -> dict[str, dict[str, float]]:
    """aggregate -> column -> value."""
    found = figures.compute(catalogue.get(name), answers, intervals=False).table
    return {aggregate: {column: one.value for column, one in columns.items()} for aggregate, columns in found.items()}
