"""The figures of a run's report, from the files its stages left in the workdir.

Accuracies are over problems with several responses; those with one are reported apart. A *label* names a model and, if
it is not the run's own, a temperature (`rl`, `rl@T0.5`); a *measure* a way of judging (`greedy`, `vote@8`, `meta@8`).
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from spct_jax import files
from spct_jax.config import STAGES
from spct_jax.errors import InputError
from spct_jax.evaluation import metrics
from spct_jax.training.writers import read_metrics

Tallies = dict[str, dict[str, metrics.Tally]]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run left in its workdir; whatever it did not reach is absent.

    `samples` holds the rows of `evaluate/*.jsonl` (see `metrics`) by label and kind, `greedy` or `sampled`.
    """

    config: dict
    stages: dict[str, dict]
    curves: dict[str, list[dict]]
    samples: dict[str, dict[str, list[dict]]]
    problems: dict[str, dict]

    def rows(self, label: str, kind: str, single: bool = False) -> list[dict]:
        """The problems of one label and kind that have several responses, or those that have one."""
        return [row for row in self.samples[label].get(kind, ()) if row["single"] == single]


def read_run(workdir: str | os.PathLike) -> Run:
    """Reads a workdir.

    Raises:
      InputError: if it has no config.json or one of its files is not what a run writes.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "config.json").is_file():
        raise InputError(f"{workdir}: not the workdir of a run: it has no config.json")
    summaries = {stage: workdir / stage / "summary.json" for stage in STAGES}
    curves = {stage: workdir / stage / "metrics.jsonl" for stage in STAGES}
    samples = {}
    for path in sorted((workdir / "evaluate").glob("*.jsonl")):
        if name := re.fullmatch(r"(.+)_(greedy|sampled)(?:_T([\d.]+))?", path.stem):
            label = f"{name[1]}@T{name[3]}" if name[3] else name[1]
            samples.setdefault(label, {})[name[2]] = read_metrics(path)
    problems = workdir / "evaluate" / "problems.jsonl"
    return Run(
        config=files.read_json(workdir / "config.json"),
        stages={stage: files.read_json(path) for stage, path in summaries.items() if path.exists()},
        curves={stage: read_metrics(path) for stage, path in curves.items() if path.exists()},
        samples={label: samples[label] for label in sorted(samples, key=_label_order)},
        problems={row["id"]: row for row in read_metrics(problems)} if problems.exists() else {},
    )


def tallies(run: Run) -> Tallies:
    """Every measure of every label, with votes of the configured k and of every power of two there are samples for."""
    settings = run.config.get("evaluation", {})
    fraction = settings.get("k_meta_fraction", 0.5)
    table: Tallies = {}
    for label in run.samples:
        measures = {}
        if rows := run.rows(label, "greedy"):
            measures["greedy"] = metrics.tally(rows, 1)
        if rows := run.rows(label, "sampled"):
            ks = _vote_sizes(rows, settings.get("k", ()))
            measures |= {f"vote@{k}": metrics.tally(rows, k) for k in ks}
            if any(sample["meta"] is not None for row in rows for sample in row["samples"]):
                guided = {k: metrics.guided_votes(k, fraction) for k in ks if k > 1}
                measures |= {f"meta@{k}": metrics.tally(rows, k, k_meta) for k, k_meta in guided.items()}
        if measures:
            table[label] = measures
    return table


def figures(run: Run) -> dict:
    """Everything in `report.json`, a function of the run's files alone."""
    table = tallies(run)
    asked = _asked(table, run.config.get("evaluation", {}).get("k", ()))
    judged = _first_rows(run)
    report = {
        "config": run.config,
        "seed": run.config.get("seed"),
        "problems": len(judged),
        "chance": float(np.mean([1 / row["n"] for row in judged])) if judged else None,
        "stages": run.stages,
        "peak_memory_gib": max((s["peak_memory_gib"] for s in run.stages.values() if "peak_memory_gib" in s), default=None),
        **_accuracies(asked),
        "tie_rate": {label: {name: tally.tie_rate for name, tally in measures.items()} for label, measures in asked.items()},
        "malformed_rate": {
            label: {kind: metrics.malformed_rate(rows) for kind, rows in kinds.items() if rows}
            for label, kinds in run.samples.items()
        },
        "truncated_rate": {
            label: {kind: metrics.truncated_rate(rows) for kind, rows in kinds.items() if rows}
            for label, kinds in run.samples.items()
        },
        "agreement": {label: metrics.agreement(rows) for label in run.samples if (rows := run.rows(label, "sampled"))},
        "paired": {label: pairs for label, measures in asked.items() if (pairs := _pairs(measures))},
        "by_k": {label: curve for label, measures in table.items() if (curve := _curve(measures))},
    }
    if single := _single(run):
        report["single"] = single
    return report


def _accuracies(table: Tallies) -> dict:
    return {
        "accuracy": {label: {name: tally.accuracy for name, tally in row.items()} for label, row in table.items()},
        "intervals": {
            label: {name: list(metrics.bootstrap_interval(tally.credit)) for name, tally in row.items()}
            for label, row in table.items()
        },
    }


def _pairs(measures: Mapping[str, metrics.Tally]) -> dict:
    votes = sorted((name for name in measures if name.startswith("vote@")), key=metrics.votes)
    wanted = list(zip(votes[1:], votes[:-1], strict=True))
    wanted += [(name, f"vote@{metrics.votes(name)}") for name in measures if name.startswith("meta@")]
    pairs = {}
    for more, less in wanted:
        difference = metrics.paired_bootstrap(measures[more].credit, measures[less].credit)
        pairs[f"{more} - {less}"] = {"difference": difference.mean, "interval": [difference.low, difference.high]}
    return pairs


def _curve(measures: Mapping[str, metrics.Tally]) -> dict:
    """Accuracy by k; one vote has nothing to choose from, so the guided curve starts where the plain one does."""
    ks = sorted(metrics.votes(name) for name in measures if name.startswith("vote@"))
    if len(ks) < 2:
        return {}
    lines = {"vote": [measures[f"vote@{k}"] for k in ks]}
    if any(name.startswith("meta@") for name in measures):
        lines["meta"] = [measures.get(f"meta@{k}", measures[f"vote@{k}"]) for k in ks]
    curve = {"k": ks}
    for kind, line in lines.items():
        curve[kind] = [tally.accuracy for tally in line]
        curve[f"{kind}_interval"] = [list(metrics.bootstrap_interval(tally.credit)) for tally in line]
    return curve


def _single(run: Run) -> dict:
    part: Tallies = {}
    problems = set()
    for label, kinds in run.samples.items():
        for kind in kinds:
            rows = [row for row in run.rows(label, kind, single=True) if row["id"] in run.problems]
            if rows:
                k = min(len(row["samples"]) for row in rows)
                credit = metrics.single_credit(rows, [run.problems[row["id"]]["scores"][0] for row in rows], k)
                name = "greedy" if kind == "greedy" else f"vote@{k}"
                part.setdefault(label, {})[name] = metrics.Tally(credit, np.zeros(len(rows), bool))
                problems |= {row["id"] for row in rows}
    return {"problems": len(problems), **_accuracies(part)} if part else {}


def _asked(table: Tallies, ks: Sequence[int]) -> Tallies:
    """The measures the configuration names; the other powers of two are for the curve only."""
    return {
        label: {name: tally for name, tally in measures.items() if name == "greedy" or metrics.votes(name) in ks}
        for label, measures in table.items()
    }


def _vote_sizes(rows: Sequence[Mapping], ks: Sequence[int]) -> list[int]:
    most = min(len(row["samples"]) for row in rows)
    return sorted({k for k in (*ks, *(2**power for power in range(most.bit_length()))) if k <= most})


def _first_rows(run: Run) -> list[dict]:
    found = (run.rows(label, kind) for label, kinds in run.samples.items() for kind in kinds)
    return max(found, key=len, default=[])


def _label_order(label: str) -> tuple:
    stage = label.partition("@")[0]
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), label)
