"""Recorded outputs of public judges as files of recorded votes, the form that figures are computed from."""

import gzip
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from spct_jax.evaluation import figures, recorded
from spct_jax.evaluation.benchmarks import catalogue

Lines = list[dict[str, Any]]


def load(path: pathlib.Path) -> Any:
    """The JSON in a plain or gzipped file."""
    return json.loads((gzip.open if path.suffix == ".gz" else open)(path, "rb").read())


def scored(name: str, lines: Lines, directory: pathlib.Path) -> figures.Figures:
    """The figures of a benchmark from lines, by way of a file; no data of the benchmark is read."""
    path = directory / "scores.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    benchmark = catalogue.get(name)
    return figures.compute(benchmark, figures.stand_alone(benchmark, recorded.read(path), path), intervals=False)


def llmbar(runs: Mapping[str, Any]) -> Iterator[tuple[str, Lines, Mapping[str, str]]]:
    """For each judge and subset: its name, the winners it named in both orders, and the published statistics."""
    for name, run in runs.items():
        lines = [
            {
                "id": str(index),
                "decision": [None if winner is None else int(winner) - 1 for winner in games],
                "best": label - 1,
                "subset": name.partition("|")[0],
            }
            for index, (label, *games) in enumerate(zip(run["label"], run["first"], run["swapped"], strict=True))
        ]
        yield name, lines, run["statistics"]
