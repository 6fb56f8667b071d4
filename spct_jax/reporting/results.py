"""The figures of a run's report, from the files its stages left in the workdir.

Accuracies are over problems with several responses; those with one are reported apart. A *measure* is a way of
judging: `greedy`, `vote@8`, `meta@8`; for labels see `run_files`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from spct_jax.config import BASELINES
from spct_jax.evaluation import bootstrap, metrics, recorded
from spct_jax.reporting.run_files import RunFiles

STAGE_NAMES = {
    "sft": "Cold start",
    "rejection": "Rejection sampling",
    "rft": "RFT",
    "rl": "RL",
    "meta_rm": "Meta RM",
    "btrm": "Bradley-Terry",
    "pairrm": "PairRM",
    "cloud": "CLoud",
    "evaluate": "Evaluation",
}
Tallies = dict[str, dict[str, metrics.Tally]]


def label_name(label: str) -> str:
    """`rl` as "RL", `rl@T0.5` as "RL, T = 0.5", `rl+token_prob` as "RL, TokenProb"."""
    stage, _, temperature = label.partition("@T")
    stage, _, mode = stage.partition("+")
    name = STAGE_NAMES.get(stage, stage) + (", TokenProb" if mode else "")
    return f"{name}, T = {temperature}" if temperature else name


def tallies(run: RunFiles) -> Tallies:
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


def figures(run: RunFiles) -> dict:
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
        **{
            name: {
                label: {kind: rate(metrics.all_votes(rows)) for kind, rows in kinds.items() if rows}
                for label, kinds in run.samples.items()
            }
            for name, rate in (("malformed_rate", recorded.malformed_rate), ("truncated_rate", recorded.truncated_rate))
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
            label: {name: list(bootstrap.interval(tally.credit)) for name, tally in row.items()} for label, row in table.items()
        },
    }


def _pairs(measures: Mapping[str, metrics.Tally]) -> dict:
    votes = sorted((name for name in measures if name.startswith("vote@")), key=metrics.votes)
    wanted = list(zip(votes[1:], votes[:-1], strict=True))
    wanted += [(name, f"vote@{metrics.votes(name)}") for name in measures if name.startswith("meta@")]
    pairs = {}
    for more, less in wanted:
        difference = bootstrap.paired(measures[more].credit, measures[less].credit)
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
        curve[f"{kind}_interval"] = [list(bootstrap.interval(tally.credit)) for tally in line]
    return curve


def _single(run: RunFiles) -> dict:
    part: Tallies = {}
    problems = set()
    for label, kinds in run.samples.items():
        for kind in kinds if label not in BASELINES else ():  # whose scores have no value that means "right"
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


def _first_rows(run: RunFiles) -> list[dict]:
    found = (run.rows(label, kind) for label, kinds in run.samples.items() for kind in kinds)
    return max(found, key=len, default=[])
