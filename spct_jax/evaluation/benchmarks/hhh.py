"""HHH [Askell et al., 2021], as Prometheus ships it: 221 pairs about helpfulness, honesty, harmlessness and other matters.

Accuracy per subset, over all items and as the mean of the subsets; `official` takes a tie as wrong. The file holds each
response inside the template of Prometheus' own prompt; what is judged is taken out of it, and its rubric is left out.
"""

import os
from collections.abc import Sequence

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.data.layouts import prometheus
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import base, reading


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    items = []
    for file in reading.find(path, "hhh_alignment_eval.json"):
        items += reading.items(file, on_bad, report, _item)
    return reading.check_ids(items, path)


def _item(row: reading.Row, index: int) -> base.Item:
    (query, chosen), (other, rejected) = (
        prometheus.unwrap(row, field) for field in ("chosen_instruction", "rejected_instruction")
    )
    if query != other:
        raise InputError("the two responses are to different instructions")
    return reading.item(str(index), query, [chosen, rejected], 0, reading.text(row, "source"))


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    subsets = [answer.item.subset for answer in answers]
    columns = base.standard(answers)
    aggregates = {"all items": base.micro(subsets), "mean of subsets": base.macro(subsets)}
    return [base.Block(subsets, {"official": columns["strict"]} | columns, aggregates)]


BENCHMARK = base.Benchmark(
    name="hhh",
    title="HHH",
    licence="Apache-2.0",
    data="hhh_alignment_eval.json of prometheus-eval/prometheus-eval",
    metric="accuracy",
    read=_read,
    blocks=_blocks,
    best_first=True,
)
