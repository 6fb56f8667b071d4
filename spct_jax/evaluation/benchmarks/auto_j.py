"""Auto-J's pairs [Li et al., 2023]: 1,392 pairs in 58 scenarios, labelled 0, 1 or tie (520, 499, 373).

Official metric: `agreement`, the share of items where the verdicts in both orders equal the label, and `consistency`, where
they equal each other; for a judge that rates each response by itself, plain accuracy (`single`). `official` is agreement. A tie
is a class of its own, so a judge whose scores never tie cannot get past 73.2 %; `agreement_band_1` takes scores that differ by
at most one point per vote for a tie. A verdict that cannot be read is wrong. `paper` and `strict` are over the items without a
tie.
"""

import os
from collections.abc import Sequence

import numpy as np

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.evaluation.benchmarks import base, reading, three_way
from spct_jax.evaluation.recorded import TIE


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    items = []
    for file in reading.find(path, "testdata_pairwise.jsonl"):
        items += reading.items(file, on_bad, report, _item)
    return reading.check_ids(items, path)


def _item(row: reading.Row, index: int) -> base.Item:
    given = reading.one_of(row, "label", (0, 1, 2))
    label, best = (TIE, None) if given == 2 else (given, given)
    responses = reading.fields(row, "response 1", "response 2")
    return reading.item(str(index), reading.text(row, "prompt"), responses, best, reading.text(row, "scenario"), label)


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    labels = [answer.item.label for answer in answers]
    games = [answer.games() for answer in answers]
    columns = {}
    scores = not any(answer.decides for answer in answers)
    for name, band in (("official", 0.0), *([("agreement_band_1", 1.0)] if scores else [])):
        pairs = [tuple(three_way.verdict(game, band) for game in pair) for pair in games]
        if all(None not in pair for pair in games):
            columns[name] = np.array([float(pair == (label, label)) for pair, label in zip(pairs, labels, strict=True)])
            if not band:
                columns["consistency"] = np.array([float(first == second) for first, second in pairs])
        if all(first is not None for first, _ in games) and not band:
            columns["single"] = np.array([float(first == label) for (first, _), label in zip(pairs, labels, strict=True)])
    return three_way.blocks(answers, columns)


BENCHMARK = base.Benchmark(
    name="auto_j",
    title="Auto-J, pairs",
    licence="Apache-2.0 (code); the data is of several sources",
    data="data/test/testdata_pairwise.jsonl of GAIR-NLP/auto-j",
    metric="share of items where both orders give the label",
    read=_read,
    blocks=_blocks,
    rules=base.TWO_GAMES | three_way.RULES,
    complete=three_way.complete,
)
