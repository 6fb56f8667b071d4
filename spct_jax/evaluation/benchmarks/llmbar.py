"""LLMBar [Zeng et al., 2023]: 419 pairs, one response follows the instruction and the other only looks better.

Official metric (their `evaluate.py`): a judge sees each pair in both orders; an item's accuracy is the mean of the two games,
so a subset's is (accuracy as given + accuracy swapped) / 2. A game counts when the winner equals the label, so ties and answers
that cannot be read are wrong. `agreement` is the share of items with the same winner in both games, where two ties, or two
answers that cannot be read, are the same; `both` the share that is right twice. Their kappas are not computed: they compare
winners 1 and 2 with the names 0 and 1.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.evaluation.benchmarks import base, reading
from spct_jax.grm import voting

_SUBSETS = {
    "Natural": "Natural",
    "Neighbor": "Adversarial/Neighbor",
    "GPTInst": "Adversarial/GPTInst",
    "GPTOut": "Adversarial/GPTOut",
    "Manual": "Adversarial/Manual",
}


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    items = []
    for file in reading.find(path, "dataset.json"):
        subset = _SUBSETS.get(file.parent.name, file.parent.name)
        items += reading.items(file, on_bad, report, lambda row, index, subset=subset: _item(row, f"{subset}/{index}", subset))
    return reading.check_ids(items, path)


def _item(row: Mapping[str, Any], id: str, subset: str) -> base.Item:
    label = reading.one_of(row, "label", (1, 2))
    responses = reading.fields(row, "output_1", "output_2")
    return reading.item(id, reading.text(row, "input"), responses, label - 1, subset)


def _winner(answer: base.Answer | None) -> int | str | None:
    top = () if answer is None else voting.winners(answer.totals)
    return None if not top else "tie" if len(top) > 1 else top[0]


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    games = [answer.games() for answer in answers]
    subsets = [answer.item.subset for answer in answers]
    columns = {}
    if all(None not in pair for pair in games):
        winners = [tuple(map(_winner, pair)) for pair in games]
        right = np.array(
            [[winner == answer.item.best for winner in pair] for pair, answer in zip(winners, answers, strict=True)], float
        )
        columns = {
            "official": right.mean(1),
            "given": right[:, 0],
            "swapped": right[:, 1],
            "agreement": np.array([float(first == second) for first, second in winners]),
            "both": right.prod(1),
        }
    adversarial = [subset for subset in subsets if subset.startswith("Adversarial")]
    aggregates = {"all": base.micro(subsets), "mean of subsets": base.macro(subsets)}
    if adversarial:
        aggregates["Adversarial, mean of subsets"] = base.macro(adversarial)
    return [base.Block(subsets, columns | base.standard(answers), aggregates)]


BENCHMARK = base.Benchmark(
    name="llmbar",
    title="LLMBar",
    licence="MIT",
    data="the directory LLMBar of princeton-nlp/LLMBar, or one of its dataset.json",
    metric="accuracy, the mean of both orders",
    read=_read,
    blocks=_blocks,
    rules=base.TWO_GAMES,
    complete=base.best_by(1, 2),
)
