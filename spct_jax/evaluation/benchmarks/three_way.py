"""Pairs of which people may have said that they are equally good: three classes, of which a tie is one.

An item's label is 0, 1 or "tie"; its `best` is None for a tie. A judge that scores says "tie" where its totals differ by no
more than a band, per vote; with a band of 0 only where they are equal. `paper` and `strict` are about picking the best
response, so they are over the items that people do not call a tie, in every row.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import base
from spct_jax.evaluation.recorded import TIE

CLASSES = (0, 1, TIE)
Class = int | str
RULES = {
    "paper": "over the items that people do not call a tie: a tie of the judge counts 1/2, and so does a verdict that cannot "
    "be read",
    "strict": "over the same items: only a response that beats the other counts",
}
"""What these columns mean here."""


def complete(item: base.Item) -> base.Item:
    """An item with its label, from `label` or else from `best`; InputError where there is neither."""
    label = item.best if item.label is None else item.label
    if isinstance(label, bool) or label not in CLASSES or item.n != 2:
        raise InputError(f"no 'label' for two responses: 0, 1 or \"tie\" ({label!r})")
    return dataclasses.replace(item, label=label, best=None if label == TIE else label)


def verdict(answer: base.Answer | None, band: float = 0.0) -> Class | None:
    """The class that the votes name; None where none could be read."""
    totals = None if answer is None else answer.totals
    if totals is None:
        return None
    difference = (totals[0] - totals[1]) / sum(vote.valid for vote in answer.votes)
    return TIE if abs(difference) <= band else int(difference < 0)


def macro_scores(truth: Sequence[Class], said: Sequence[Class]) -> tuple[float, float, float]:
    """Precision, recall and F1, each the plain mean over the classes that occur in either; 0 where it is 0/0."""
    scores = []
    for one in CLASSES:
        both = sum(a == b == one for a, b in zip(truth, said, strict=True))
        named, there = sum(b == one for b in said), sum(a == one for a in truth)
        if named or there:
            precision, recall = both / max(named, 1), both / max(there, 1)
            scores.append((precision, recall, 2 * precision * recall / max(precision + recall, 1e-300)))
    return tuple(np.mean(scores, axis=0).tolist())


def blocks(
    answers: Sequence[base.Answer], columns: Mapping[str, np.ndarray], statistics: Sequence[base.Statistic] = ()
) -> list[base.Block]:
    """The given figures over all items, and the usual columns over those without a tie, which alone have a best response.

    The latter stand in the row of all items, too, which then has every column that other benchmarks have.
    """
    subsets = [answer.item.subset for answer in answers]
    made = [base.Block(subsets, columns, {"all items": base.micro(subsets)}, statistics)]
    if clear := [answer for answer in answers if answer.item.best is not None]:
        name = "without ties"
        aggregates = {"all items": {name: 1.0}, name: {name: 1.0}}
        made.append(base.Block([name] * len(clear), base.standard(clear), aggregates))
    return made
