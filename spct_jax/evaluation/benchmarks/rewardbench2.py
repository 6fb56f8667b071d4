"""RewardBench 2 [Malik et al., 2025]: 1,865 prompts in six subsets; one right response of four, and a subset about ties.

Official metric: an item earns 1/t where the right response is one of t with the highest score, else 0. A judge that chooses one
of four earns 1 or 0, and 1/4 where its verdict cannot be read; one that rates, 1/t, and 1/4 where all ratings failed. All of
these are the paper's rule as well. A rating that failed is recorded as -1.

The subset Ties (ids `ref:<n>` with one right response and `tied:<n>` with several; the right ones come first) has a figure of
its own. Call a prompt accurate where its worst right response beats its best wrong one, `gap` the difference of these two and
`spread` that between the best and the worst right response of a tied prompt. Then Ties =

    0.3 accuracy(tied) + 0.3 accuracy(ref) + 0.2 P(gap_tied > spread) + 0.2 P(min(gap_ref, gap_tied) > spread)
    + 0.01 mean tanh(min(gap_ref, gap_tied) / spread - 1)

where 0/0 counts as 0 in the last term and x/0 as an infinity, and probabilities and means are over the n that have both
prompts. The average is the plain mean of the six subsets; under `paper` and `strict`, too, Ties enters it by its own formula.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence

import numpy as np

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import base, reading

SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
_ID = re.compile(r"(?:.*/)?(ref|tied):(\d{1,18})")


def _is_ties(subset: str) -> bool:
    return subset.lower() == "ties"


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    items = []
    for file in reading.find(path, "*.jsonl", "*.jsonl.gz", "*.json", "*.json.gz", "*.parquet"):
        items += reading.items(file, on_bad, report, _item)
    return reading.check_ids(items, path)


def _item(row: reading.Row, index: int) -> base.Item:
    subset = reading.text(row, "subset")
    chosen, rejected = reading.list_of(row, "chosen", str), reading.list_of(row, "rejected", str)
    id = f"{subset}/{reading.name(row, 'id')}"
    best, label = (None, len(chosen)) if _is_ties(subset) else (0, None)
    return _complete(reading.item(id, reading.field_of(row, "prompt"), [*chosen, *rejected], best, subset, label))


def _complete(item: base.Item) -> base.Item:
    if not _is_ties(item.subset):
        return base.need_best(item)
    if not _ID.fullmatch(item.id):
        raise InputError("the id of an item of Ties is not ref:<number> or tied:<number>")
    if isinstance(item.label, bool) or not isinstance(item.label, int) or not 0 < item.label < item.n:
        raise InputError(f"no 'label', how many of the {item.n} responses are right ({item.label!r})")
    return dataclasses.replace(item, best=None, pairs=())


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    others = [answer for answer in answers if not _is_ties(answer.item.subset)]
    ties = _Ties([answer for answer in answers if _is_ties(answer.item.subset)])
    subsets = [answer.item.subset for answer in others]
    columns = base.standard(others)
    columns = {"official": columns["paper"]} | columns
    if not ties.prompts:
        return [base.Block(subsets, columns, {"mean of subsets": base.macro(subsets), "all items": base.micro(subsets)})]

    names = np.array(subsets, dtype=object)
    strata = [np.flatnonzero(names == subset) for subset in sorted(set(subsets))]
    prompts = len(others) + np.arange(len(ties.prompts))

    def average(column: str) -> Callable[[np.ndarray], float]:
        def value(rows: np.ndarray) -> float:
            means = [columns[column][rows[np.isin(rows, stratum)]].mean() for stratum in strata]
            return float(np.mean([*means, ties.score(rows[rows >= len(others)] - len(others))]))

        return value

    headline = "Overall" if {*subsets, "Ties"} == set(SUBSETS) else "mean of subsets"
    statistics = [base.Statistic(headline, column, [*strata, prompts], average(column)) for column in columns]
    statistics.append(base.Statistic("Ties", "official", [prompts - len(others)], ties.score))
    linear = {"mean of subsets without Ties": base.macro(subsets)} if subsets else {}
    return [base.Block([], {}, {}, statistics), base.Block(subsets, columns, linear)]


class _Ties:
    """The prompts of the subset Ties, as arrays: one entry for each n of `ref:<n>` and `tied:<n>`; NaN for one not there."""

    def __init__(self, answers: Sequence[base.Answer]):
        found: dict[int, dict[str, tuple[float, float]]] = {}
        for answer in answers:
            kind, number = _ID.fullmatch(answer.item.id).groups()
            found.setdefault(int(number), {})[kind] = self._gap_and_spread(answer)
        self.prompts = sorted(found)
        nothing = (np.nan, np.nan)
        self.gap_ref, _ = np.array([found[n].get("ref", nothing) for n in self.prompts]).reshape(-1, 2).T
        self.gap_tied, self.spread = np.array([found[n].get("tied", nothing) for n in self.prompts]).reshape(-1, 2).T

    @staticmethod
    def _gap_and_spread(answer: base.Answer) -> tuple[float, float]:
        scores = answer.means if answer.means is not None else (-1.0,) * answer.item.n
        right, wrong = scores[: answer.item.label], scores[answer.item.label :]
        return min(right) - max(wrong), max(right) - min(right)

    def score(self, rows: np.ndarray) -> float:
        """The subset's figure over some of its prompts."""
        ref, tied, spread = self.gap_ref[rows], self.gap_tied[rows], self.spread[rows]
        accuracy = [(gaps[~np.isnan(gaps)] > 0).mean() if (~np.isnan(gaps)).any() else 0.0 for gaps in (tied, ref)]
        both = ~np.isnan(ref) & ~np.isnan(tied)
        tied, spread, least = tied[both], spread[both], np.minimum(ref, tied)[both]
        if not both.any():
            return float(0.3 * sum(accuracy))
        with np.errstate(divide="ignore", invalid="ignore"):
            margin = np.nan_to_num(np.tanh(least / spread - 1), nan=0.0)
        preferred = (tied > spread).mean() + (least > spread).mean()
        return float(0.3 * sum(accuracy) + 0.2 * preferred + 0.01 * margin.mean())


BENCHMARK = base.Benchmark(
    name="rewardbench2",
    title="RewardBench 2",
    licence="ODC-By 1.0",
    data="the split `test` of allenai/reward-bench-2, as parquet or JSON",
    metric="mean of six subsets; 1/t for t tied maxima, and the formula of Ties",
    read=_read,
    blocks=_blocks,
    best_first=True,
    responses=4,
    fixed=False,
    by_ending=True,
    complete=_complete,
)
