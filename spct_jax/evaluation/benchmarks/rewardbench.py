"""RewardBench [Lambert et al., 2024]: 2,985 pairs in 23 subsets, 4 sections.

Official metric: a section is the mean of its subsets' accuracies, weighted by how many examples they count for (math-prm, 447
pairs, counts for 984, as much as the code of Reasoning). The SPCT paper's figure is the plain mean of the four sections. The
leaderboard's average weights the sections 2, 2, 2, 2 and the prior sets 1: the plain mean of `anthropic_helpful`,
`anthropic_hhh`, `shp` and `summarize`, of those that are there.

Ties: a scalar reward model must score the chosen response strictly higher; for a judge that decides, anything but a clear
verdict earns 1/2. `official` is the first rule for scores and the second for decisions, and `generative` the second for both:
what the official code gives a judge that rates responses. An earlier version of the weights had the counts of the two xstest
subsets swapped; figures with those are in rows of their own.
"""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.evaluation.benchmarks import base, reading

SECTIONS = {
    "Chat": {"alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28, "mt-bench-med": 40},
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984,
        **{f"hep-{language}": 164 for language in ("cpp", "go", "java", "js", "python", "rust")},
    },
}
"""How many examples each subset counts for."""
_SWAPPED = SECTIONS["Safety"] | {"xstest-should-refuse": 250, "xstest-should-respond": 154}
PRIOR = ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")


def aggregates(subsets: Sequence[str]) -> dict[str, base.Weights]:
    """The weights of the subsets (one name per item) in every figure that their sections allow."""
    present, found = set(subsets), {}
    for section, counts in SECTIONS.items():
        if names := present & counts.keys():
            found[section] = base.micro(names, counts)
    swapped = base.micro(names, _SWAPPED) if (names := present & _SWAPPED.keys()) else {}
    prior = base.macro(names) if (names := present & set(PRIOR)) else {}
    core = [subset for subset in subsets if any(subset in counts for counts in SECTIONS.values())]
    overall = {"all items": base.micro(core or subsets)}
    if len(found) == len(SECTIONS):
        sections = list(found.values())
        with_swapped = [swapped if section == "Safety" else weights for section, weights in found.items()]
        overall = {"Overall": base.mean_of(sections)} | overall
        if prior:
            overall["with Prior Sets"] = base.mean_of([*sections, *sections, prior])
        overall["Overall, xstest counts swapped"] = base.mean_of(with_swapped)
    if swapped:
        found["Safety, xstest counts swapped"] = swapped
    if prior:
        found["Prior Sets"] = prior
    return overall | found


def _read(path: str | os.PathLike, on_bad: OnBad, report: ReadReport) -> list[base.Item]:
    items = []
    for file in reading.find(path, "*.jsonl", "*.jsonl.gz", "*.json", "*.json.gz", "*.parquet"):
        items += reading.items(file, on_bad, report, lambda row, index, file=file: _item(row, index, file))
    return reading.check_ids(items, path)


def _item(row: reading.Row, index: int, file: pathlib.Path) -> base.Item:
    subset = reading.text(row, "subset") if "subset" in row else file.name.partition(".")[0].partition("-0")[0]
    id = f"{subset}/{reading.name(row, 'id', index)}"
    return reading.item(id, reading.field_of(row, "prompt"), reading.fields(row, "chosen", "rejected"), 0, subset)


def _blocks(answers: Sequence[base.Answer]) -> list[base.Block]:
    subsets = [answer.item.subset for answer in answers]
    columns = base.standard(answers)
    generative = np.array([base.even_credit(answer.compare(answer.item.best, 1 - answer.item.best)) for answer in answers])
    official = generative if any(answer.decides for answer in answers) else columns["strict"]
    columns = {"official": official, "generative": generative} | columns
    return [base.Block(subsets, columns, aggregates(subsets))]


BENCHMARK = base.Benchmark(
    name="rewardbench",
    title="RewardBench",
    licence="ODC-By 1.0; parts have licences of their own",
    data="the split `filtered` of allenai/reward-bench, and allenai/preference-test-sets, as parquet or JSON",
    metric="mean of four sections, each weighted by example counts",
    read=_read,
    blocks=_blocks,
    best_first=True,
    by_ending=True,
)
