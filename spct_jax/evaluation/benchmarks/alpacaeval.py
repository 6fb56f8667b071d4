"""AlpacaEval's win rate [Li et al., 2023]: how often a judge prefers a model's output to a reference's.

It measures a model by way of a judge, so there is no right response: an item's second response is the model's, and the win rate
is the mean share that it gets. A decision gives it all, half (a tie) or nothing; a row of two numbers that sum to 1 gives it
its share (the weighted win rate; a published `preference` p is the row [2 - p, p - 1]); other scores decide by which is higher.
A vote that cannot be read is left out, and the item with it if it has no other. `wins` and `draws` are shares of the items.
"""

import os
from collections.abc import Sequence

import numpy as np

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.evaluation.benchmarks import base, reading


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    items = []
    for file in reading.find(path, "*.json", "*.jsonl"):
        items += reading.items(file, on_bad, report, _item)
    return reading.check_ids(items, path)


def _item(row: reading.Row, index: int) -> base.Item:
    responses = reading.fields(row, "output_1", "output_2")
    return reading.item(str(index), reading.text(row, "instruction"), responses, None, reading.name(row, "dataset", ""))


def _share(answer: base.Answer) -> float:
    """What the second response gets, on average over the votes; NaN where none could be read."""
    shares = []
    for vote in answer.votes:
        first, second = vote.points(2) or (np.nan, np.nan)
        weighted = min(first, second) >= 0 and abs(first + second - 1) < 1e-6
        shares.append(second if weighted else 0.5 + ((second > first) - (second < first)) / 2 if first == first else np.nan)
    read = [share for share in shares if share == share]
    return float(np.mean(read)) if read else np.nan


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    shares = np.array([_share(answer) for answer in answers])
    kept = np.flatnonzero(~np.isnan(shares))
    if not len(kept):
        return []
    shares, subsets = shares[kept], [answers[index].item.subset for index in kept]
    columns = {
        "official": shares,
        "wins": (shares > 0.5).astype(float),
        "draws": (shares == 0.5).astype(float),
    }
    return [base.Block(subsets, columns, {"all items": base.micro(subsets)})]


BENCHMARK = base.Benchmark(
    name="alpacaeval",
    title="AlpacaEval",
    licence="CC-BY-NC-4.0 (data)",
    data="files of rows with `instruction`, `output_1` (the reference's) and `output_2`",
    metric="win rate of the second response",
    read=_read,
    blocks=_blocks,
    by_ending=True,
    quantity="win rate",
    rules={"official": "the mean share of the second response, the model's; it measures the model, not the judge"},
    complete=lambda item: item,
)
