"""PandaLM's test set [Wang et al., 2023]: 999 pairs, each judged 1, 2 or tie by three people.

Official metric: accuracy, and macro precision, recall and F1, over the three classes against the majority of the three (every
item has one: 894 of the 999 name a response, 105 a tie). What a judge says that is no verdict counts as a tie, which is what
reproduces the published figures. `paper` and `strict` are over the 894.
"""

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import base, reading, three_way
from spct_jax.evaluation.recorded import TIE


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    items = []
    for file in reading.find(path, "testset-v1.json"):
        items += reading.items(file, on_bad, report, _item)
    return reading.check_ids(items, path)


def _item(row: reading.Row, index: int) -> base.Item:
    votes = Counter(reading.one_of(row, f"annotator{number}", (0, 1, 2)) for number in (1, 2, 3))
    choice, count = votes.most_common(1)[0]
    if count == 1:
        raise InputError("the three annotators disagree")
    extra = "" if row.get("input") is None else reading.text(row, "input")
    query = reading.text(row, "instruction") + (f"\n\n{extra}" if extra else "")
    id, subset = reading.name(row, "idx"), reading.text(row, "cmp_key") if row.get("cmp_key") else ""
    label = TIE if choice == 0 else choice - 1
    best = None if choice == 0 else label
    return reading.item(id, query, reading.fields(row, "response1", "response2"), best, subset, label)


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    truth = [answer.item.label for answer in answers]
    said = [verdict if (verdict := three_way.verdict(answer)) is not None else TIE for answer in answers]
    right = np.array([float(a == b) for a, b in zip(truth, said, strict=True)])
    rows = [np.arange(len(answers))]

    def macro(which: int) -> base.Statistic:
        def value(drawn: np.ndarray) -> float:
            return three_way.macro_scores([truth[row] for row in drawn], [said[row] for row in drawn])[which]

        return base.Statistic("all items", ("precision", "recall", "f1")[which], rows, value)

    return three_way.blocks(answers, {"official": right}, [macro(which) for which in range(3)])


BENCHMARK = base.Benchmark(
    name="pandalm",
    title="PandaLM",
    licence="Apache-2.0",
    data="data/testset-v1.json of WeOpenML/PandaLM",
    metric="accuracy over three classes, against the majority of three people",
    read=_read,
    blocks=_blocks,
    rules=three_way.RULES,
    complete=three_way.complete,
)
