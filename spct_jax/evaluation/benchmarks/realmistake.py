"""ReaLMistake [Kamoi et al., 2024]: 900 responses of GPT-4 and Llama 2 in three tasks, with an error or without.

Official metric: accuracy, precision, recall and F1 with "error" as the positive class (`official` is F1), per cell of task and
model, for a judge that decides. A judge's answer that cannot be read is wrong for accuracy, and "no error" for the others.
Scores of 1 to 10 are read as a decision, too: "error" below 5.5 on average over the votes; other scores are not.

The SPCT paper's metric (`paper`) is the area under the ROC curve of the score, high for no error; two responses that tie count
1/2, and in `strict` 0. The paper does not say whether cells are pooled, so both are given: "pooled" and "mean of cells". Of
several votes the score is the mean, over those that could be read; a response without any ties with every other. Decisions are
counted: a response has as many points as there are votes for "no error", of which one that could not be read is none (so the
five samples that the benchmark's authors drew of GPT-4 give 64.15 at k = 1 and 66.34 at k = 5). A file of votes must have one
or the other.
"""

import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import base, reading
from spct_jax.evaluation.recorded import ERROR

LABELS = ("error", "no_error")
MIDDLE = 5.5
"""Of scores from 1 to 10."""


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    items = []
    for file in reading.find(path, "*.jsonl", "*.parquet"):
        if file.name != "example.jsonl" or file == pathlib.Path(path):
            items += reading.items(file, on_bad, report, lambda row, index, file=file: _item(row, index, file))
    return reading.check_ids(items, path)


def _item(row: reading.Row, index: int, file: pathlib.Path) -> base.Item:
    label = reading.one_of(row, "error_label" if "error_label" in row else "label", LABELS)
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InputError(f"metadata is not an object ({metadata!r:.60})")
    model = reading.name(metadata, "llm_response_model", "") or file.name.partition(".")[0]
    subset = f"{file.parent.name}/{model}"
    id, responses = f"{subset}/{reading.name(metadata, 'id', index)}", [reading.field_of(row, "llm_response")]
    return reading.item(id, reading.text(row, "input"), responses, None, subset, label)


def _complete(item: base.Item) -> base.Item:
    if item.label not in LABELS:
        raise InputError(f'no \'label\', "error" or "no_error" ({item.label!r})')
    return item


def auc(goodness: np.ndarray, good: np.ndarray, tie: float = 0.5) -> float:
    """The chance that a good response has a higher value than a bad one.

    Args:
        goodness: Float[R]; NaN for what could not be read, which ties with everything.
        good: Bool[R].
        tie: what a tie counts.

    Returns:
        NaN where all are good or all are bad.
    """
    pairs = int(good.sum()) * int((~good).sum())
    if not pairs:
        return float("nan")
    values, ranks = np.unique(goodness[~np.isnan(goodness)], return_inverse=True)
    read = good[~np.isnan(goodness)]
    ups, downs = (np.bincount(ranks[which], minlength=len(values)) for which in (read, ~read))
    higher = int((ups * (np.cumsum(downs) - downs)).sum())
    tied = int((ups * downs).sum()) + pairs - int(ups.sum()) * int(downs.sum())
    return (higher + tie * tied) / pairs


def f1(said: np.ndarray, error: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1 of Bool[R] predictions of an error; 0 where it is 0/0."""
    both = float((said & error).sum())
    precision, recall = both / max(said.sum(), 1), both / max(error.sum(), 1)
    return precision, recall, 2 * precision * recall / (precision + recall) if both else 0.0


def _goodness(answer: base.Answer, decides: bool) -> float:
    """The mean score, NaN where none could be read; or the number of votes for no error."""
    if decides:
        return float(sum(vote.decision == ERROR["no_error"] for vote in answer.votes))
    return float("nan") if answer.means is None else answer.means[0]


def _says_error(answer: base.Answer) -> float:
    """1 for "error", 0 for "no error" (a tie of votes is one), NaN where nothing could be read or a score says neither."""
    votes = [vote for vote in answer.votes if vote.valid]
    if not votes:
        return float("nan")
    if answer.decides:
        return float(2 * sum(vote.decision for vote in votes) > len(votes))
    return float(np.mean([vote.scores[0] for vote in votes]) < MIDDLE)


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    error = np.array([answer.item.label == "error" for answer in answers])
    decides = any(answer.decides for answer in answers)
    goodness = np.array([_goodness(answer, decides) for answer in answers])
    metrics: dict[str, Callable[[np.ndarray], float]] = {
        "paper": lambda rows: auc(goodness[rows], ~error[rows]),
        "strict": lambda rows: auc(goodness[rows], ~error[rows], tie=0.0),
    }
    columns = {}
    scores = [vote.scores[0] for answer in answers for vote in answer.votes if vote.scores is not None]
    if all(1 <= score <= 10 for score in scores):
        said = np.array([_says_error(answer) for answer in answers])
        columns["accuracy"] = (said == error).astype(float)
        found = said == 1
        metrics |= {
            "official": lambda rows: f1(found[rows], error[rows])[2],
            "precision": lambda rows: f1(found[rows], error[rows])[0],
            "recall": lambda rows: f1(found[rows], error[rows])[1],
        }
    subsets = np.array([answer.item.subset for answer in answers], dtype=object)
    cells = {cell: np.flatnonzero(subsets == cell) for cell in sorted(set(subsets))}
    strata = list(cells.values())

    def mean_of_cells(value: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
        return lambda drawn: float(np.mean([value(drawn[subsets[drawn] == cell]) for cell in cells]))

    statistics = []
    for column, value in metrics.items():
        statistics.append(base.Statistic("pooled", column, strata, value))
        statistics.append(base.Statistic("mean of cells", column, strata, mean_of_cells(value)))
        statistics += [base.Statistic(cell, column, [rows], value) for cell, rows in cells.items()]
    aggregates = {"pooled": base.micro(subsets), "mean of cells": base.macro(subsets)} | {cell: {cell: 1.0} for cell in cells}
    return [base.Block(list(subsets), columns, aggregates if columns else {}, statistics)]


BENCHMARK = base.Benchmark(
    name="realmistake",
    title="ReaLMistake",
    licence="CC-BY-SA-4.0; its authors ask that no example be published in plain text",
    data="the directory `data` in the opened data.zip of psunlpgroup/ReaLMistake",
    metric="F1 with an error as the positive class",
    read=_read,
    blocks=_blocks,
    responses=1,
    by_ending=True,
    quantity="ROC-AUC",
    rules={
        "official": "F1 with an error as the positive class",
        "paper": "the area under the ROC curve: how often a response without an error has more points than one with an error, "
        "a tie of the two counting a half",
        "strict": "the same area with ties counting nothing",
    },
    complete=_complete,
)
