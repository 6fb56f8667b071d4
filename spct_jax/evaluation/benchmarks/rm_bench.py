"""RM-Bench [Liu et al., 2024]: 1,327 prompts with three right and three wrong responses, each in three styles.

Styles are 0 concise, 1 detailed in plain text, 2 detailed with markdown; an item's responses are the three right ones and then
the three wrong ones. Official metric: M[i][j] is the share of prompts where right response i scores strictly higher than wrong
response j. `hard` is the mean of M above its diagonal (the right one is plainer), `normal` of the diagonal, `easy` of what lies
below; `official`, the mean of the three, is that of all nine pairs. A domain is the mean over its prompts, with the two parts
of safety taken together; Overall is the plain mean of the four domains. `right_i_wrong_j` are the cells. An item may also be
judged as nine pairs, which is how the official code shows it to a generative judge; how that code counts ties of such a judge
is not known.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.evaluation.benchmarks import base, reading

DOMAINS = ("chat", "code", "math", "safety")
STYLES = 3
PAIRS = tuple((i, STYLES + j) for i in range(STYLES) for j in range(STYLES))


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    path = pathlib.Path(path)
    whole = path / "total_dataset.json"
    items = []
    for file in reading.find(whole if whole.exists() else path, "*_filtered.json"):
        domain = file.name.partition("_filtered")[0]
        items += reading.items(file, on_bad, report, lambda row, index, domain=domain: _item(row, domain))
    return reading.check_ids(items, path)


def _item(row: reading.Row, domain: str) -> base.Item:
    responses = [*reading.list_of(row, "chosen", object, STYLES), *reading.list_of(row, "rejected", object, STYLES)]
    domain = reading.text(row, "domain") if "domain" in row else domain
    id = f"{domain}/{reading.name(row, 'id')}"
    return reading.item(id, reading.text(row, "prompt"), responses, None, domain, pairs=PAIRS)


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    outcomes = [[answer.compare(*pair) for pair in PAIRS] for answer in answers]
    won = np.array([[float(outcome == 1) for outcome in row] for row in outcomes]).reshape(-1, STYLES, STYLES)
    paper = np.array([[base.even_credit(outcome) for outcome in row] for row in outcomes]).mean(1)
    above, below = np.triu_indices(STYLES, 1), np.tril_indices(STYLES, -1)
    columns = {
        "official": won.mean((1, 2)),
        "hard": won[:, *above].mean(1),
        "normal": won.diagonal(axis1=1, axis2=2).mean(1),
        "easy": won[:, *below].mean(1),
        "paper": paper,
        "strict": won.mean((1, 2)),
    }
    columns |= {f"right_{i}_wrong_{j}": won[:, i, j] for i in range(STYLES) for j in range(STYLES)}
    subsets = [answer.item.subset for answer in answers]
    domains = {}
    for domain in DOMAINS:
        if names := [subset for subset in subsets if subset.startswith(domain)]:
            domains[domain] = base.micro(names)
    overall = {"Overall": base.mean_of(list(domains.values()))} if len(domains) == len(DOMAINS) else {}
    return [base.Block(subsets, columns, overall | {"all items": base.micro(subsets)} | domains)]


BENCHMARK = base.Benchmark(
    name="rm_bench",
    title="RM-Bench",
    licence="no licence file",
    data="data/total_dataset.json of THU-KEG/RM-Bench, or its files *_filtered.json",
    metric="mean of four domains, each the mean of hard, normal and easy",
    read=_read,
    blocks=_blocks,
    responses=2 * STYLES,
    pairs=PAIRS,
    by_pairs=True,
    complete=lambda item: dataclasses.replace(item, best=None, pairs=PAIRS),
)
