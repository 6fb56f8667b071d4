"""EvalBiasBench [Park et al., 2024]: 80 pairs in six kinds of bias; the wrong response has what biased judges like.

Accuracy per kind and over all items, and where both orders were played `both`, the share that is right in both. The right
response is always the first in the file, so a judge must be shown both orders. `official` takes a tie as wrong.
"""

import os
from collections.abc import Sequence

import numpy as np

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.evaluation.benchmarks import base, reading


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    items = []
    for file in reading.find(path, "evalbiasbench.json"):
        items += reading.items(file, on_bad, report, _item)
    return reading.check_ids(items, path)


def _item(row: reading.Row, index: int) -> base.Item:
    best = reading.one_of(row, "label", (1, 2)) - 1
    responses = reading.fields(row, "response1", "response2")
    return reading.item(str(index), reading.text(row, "instruction"), responses, best, reading.text(row, "bias"))


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    subsets = [answer.item.subset for answer in answers]
    columns = base.standard(answers)
    columns = {"official": columns["strict"]} | columns
    games = [answer.games() for answer in answers]
    if all(None not in pair for pair in games):
        columns["both"] = np.array([float(all(game.strict == 1 for game in pair)) for pair in games])
    return [base.Block(subsets, columns, {"all items": base.micro(subsets), "mean of kinds": base.macro(subsets)})]


BENCHMARK = base.Benchmark(
    name="evalbiasbench",
    title="EvalBiasBench",
    licence="BSD-3-Clause",
    data="evalbiasbench.json of ncsoft/offsetbias",
    metric="accuracy",
    read=_read,
    blocks=_blocks,
    complete=base.best_by(1, 2),
)
