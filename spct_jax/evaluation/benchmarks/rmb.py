"""RMB [Zhou et al., 2024]: 17,131 pairs and 3,786 best-of-N items (N is 3 to 7) about helpfulness and harmlessness.

Official metric: a pair is right where the chosen response scores strictly higher; a best-of-N item where the best one beats
every other, whether each pair is judged by itself or all N at once (as the SPCT paper does; its `paper` credit is then 1/t).
The four cells, {Helpfulness, Harmlessness} x {best-of-N, pairs}, are means over their items, and Overall is the plain mean of
the four, which reproduces the published tables; means over the files of each cell are given as well.
"""

import os
import pathlib
from collections.abc import Sequence

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.evaluation.benchmarks import base, reading

CELLS = {
    "Helpfulness, best of N": "BoN_set/Helpfulness/",
    "Helpfulness, pairs": "Pairwise_set/Helpfulness/",
    "Harmlessness, best of N": "BoN_set/Harmlessness/",
    "Harmlessness, pairs": "Pairwise_set/Harmlessness/",
}


def aggregates(subsets: Sequence[str]) -> dict[str, base.Weights]:
    """The weights of the subsets (a `category_path` per item) in the cells that are there and in their mean."""
    by_cell = {cell: [name for name in subsets if name.startswith(path)] for cell, path in CELLS.items()}
    by_item = {cell: base.micro(names) for cell, names in by_cell.items() if names}
    by_file = {f"{cell}, mean of files": base.macro(names) for cell, names in by_cell.items() if names}
    if len(by_item) < len(CELLS):
        return {"all items": base.micro(subsets)} | by_item | by_file
    overall, files = base.mean_of(list(by_item.values())), base.mean_of(list(by_file.values()))
    return {"Overall": overall} | by_item | {"Overall, mean of files": files} | by_file


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    items = []
    for file in reading.find(path, "*.json", "*.jsonl", "*.parquet"):
        items += reading.items(file, on_bad, report, lambda row, index, file=file: _item(row, file))
    return reading.check_ids(items, path)


def _item(row: reading.Row, file: pathlib.Path) -> base.Item:
    subset = reading.text(row, "category_path") if "category_path" in row else _category_path(file)
    best = "bon_best" if "bon_best" in row else "chosen"
    losers = reading.list_of(row, "loser_list", dict) if best == "bon_best" else [reading.field_of(row, "reject")]
    responses = [_answer(response) for response in (reading.field_of(row, best), *losers)]
    turns = reading.turns(row, "conversation_input")
    id = reading.name(row, "bon_uid" if best == "bon_best" else "pair_uid")
    return reading.item(f"{subset}/{id}", turns, responses, 0, subset)


def _category_path(file: pathlib.Path) -> str:
    parts = file.with_suffix("").parts
    start = next((index for index, part in enumerate(parts) if part in ("BoN_set", "Pairwise_set")), len(parts) - 1)
    return "/".join(parts[start:])


def _answer(response: object) -> object:
    return response.get("answer") if isinstance(response, dict) else response


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    subsets = [answer.item.subset for answer in answers]
    columns = base.standard(answers)
    return [base.Block(subsets, {"official": columns["strict"]} | columns, aggregates(subsets))]


BENCHMARK = base.Benchmark(
    name="rmb",
    title="RMB",
    licence="no licence file",
    data="the directory RMB_dataset of Zhou-Zoey/RMB-Reward-Model-Benchmark, or part of it",
    metric="mean of four cells; the best response must beat every other",
    read=_read,
    blocks=_blocks,
    best_first=True,
    fixed=False,
    by_ending=True,
)
