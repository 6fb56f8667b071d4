"""One page from several runs: the tiny experiment's runs with different seeds, and an ablation's.

What it states, for docs/results/tiny.md: each seed's accuracies, the spread over seeds, whether every seed shows the
order the method promises (a failure is written as plainly as a pass), meta-guided against plain votes over the seeds
pooled, the ablation paired by seed, and the time each stage took. It reads workdirs only and runs nothing; seconds.

    python experiments/studies/summarize.py --runs runs/seed0 runs/seed1 runs/seed2 --ablation runs/plain0 runs/plain1 \
        --output docs/results/tiny.md --command "python -m spct_jax.train --workdir=runs/seed0 --config.seed=0"
"""

import argparse
import dataclasses
import pathlib
import statistics
import sys
from collections.abc import Callable, Sequence

import numpy as np

from spct_jax.config import STAGES
from spct_jax.errors import InputError
from spct_jax.evaluation import bootstrap
from spct_jax.reporting import markdown, plots, results, run_files
from spct_jax.storage import files

ORDERS = (
    ("sft greedy", "rft greedy"),
    ("rft greedy", "rl greedy"),
    ("rl vote@1", "rl vote@8"),
    ("rl vote@8", "rl vote@32"),
    ("rl vote@32", "rl meta@32"),
)
COLUMNS = (
    "sft greedy",
    "rft greedy",
    "rl greedy",
    *(f"rl {m}@{k}" for m, k in (("vote", 1), ("vote", 8), ("vote", 32))),
)
COLUMNS += ("rl meta@8", "rl meta@32", "rl@T0.5 vote@8", "rl@T0.5 vote@32", "rl@T0.5 meta@8", "rl@T0.5 meta@32")


@dataclasses.dataclass(frozen=True)
class Result:
    """One run: seed, problems (id, n, best), the credit of each by "label measure", and the stages' summaries."""

    seed: int
    problems: tuple[tuple, ...]
    credits: dict[str, np.ndarray]
    stages: dict[str, dict]

    def accuracy(self, column: str) -> float | None:
        """The mean credit under one column, None if the run does not have it."""
        return float(self.credits[column].mean()) if column in self.credits else None


def load(workdir: str) -> Result:
    """Reads a workdir; InputError if it holds no evaluation, or one whose files judge different problems."""
    run = run_files.read_run_files(workdir)
    if "seed" not in run.config:
        raise InputError(f"{workdir}/config.json: no field seed")
    tallies = results.tallies(run)
    if not tallies:
        raise InputError(f"{workdir}: nothing has been evaluated there")
    judged = {
        tuple((row["id"], row["n"], row["best"]) for row in rows)
        for label, kinds in run.samples.items()
        for kind in kinds
        if (rows := run.rows(label, kind))
    }
    if len(judged) > 1:
        raise InputError(f"{workdir}/evaluate: the files do not judge the same problems in the same order")
    credits = {f"{label} {name}": tally.credit for label, row in tallies.items() for name, tally in row.items()}
    return Result(run.config["seed"], judged.pop(), credits, run.stages)


def load_all(workdirs: Sequence[str]) -> list[Result]:
    """The runs by seed; InputError if two have the same one."""
    by_seed: dict[int, tuple[str, Result]] = {}
    for workdir in workdirs:
        result = load(workdir)
        if result.seed in by_seed:
            raise InputError(f"{workdir}: seed {result.seed} again, already in {by_seed[result.seed][0]}")
        by_seed[result.seed] = (workdir, result)
    return [by_seed[seed][1] for seed in sorted(by_seed)]


def page(runs: Sequence[Result], ablation: Sequence[Result], name: str, command: str, plot: str) -> str:
    """The whole page."""
    parts = ["# Results over seeds", f"Made by\n\n{markdown.fence(command, 'sh')}"]
    counts = sorted({len(run.problems) for run in runs})
    parts.append(
        f"{len(runs)} runs, {' or '.join(f'{count:,}' for count in counts)} test problems with several responses each. "
        "Accuracies in %; a tie between t responses counts 1/t. Intervals are 95 % bootstraps."
    )
    parts += [_accuracy_section(runs), f"![accuracy of every run]({plot})", _order_section(runs), _pooled_section(runs)]
    if ablation:
        parts.append(_ablation_section(runs, ablation, name))
    parts.append(_time_section(runs))
    return "\n\n".join(parts) + "\n"


def measures_of(runs: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Accuracy by column and run, for the plot: the columns at the run's own temperature that some run has."""
    table = {column: {} for column in COLUMNS if "@T" not in column.split()[0]}
    for column, values in table.items():
        values |= {f"seed {run.seed}": run.accuracy(column) for run in runs if column in run.credits}
    return {column.replace(" ", "\n"): values for column, values in table.items() if values}


def _accuracy_section(runs: Sequence[Result]) -> str:
    columns = [column for column in COLUMNS if any(column in run.credits for run in runs)]
    rows = [[run.seed, *(markdown.percent(run.accuracy(column)) for column in columns)] for run in runs]
    for title, statistic, least in (("mean", statistics.fmean, 1), ("standard deviation", statistics.stdev, 2)):
        values = ([run.accuracy(column) for run in runs if column in run.credits] for column in columns)
        rows.append([title, *(markdown.percent(statistic(v) if len(v) >= least else None) for v in values)])
    note = "The standard deviation is over seeds, with n - 1."
    return f"## Accuracy\n\n{markdown.table(['seed', *columns], rows)}\n\n{note}"


def _order_section(runs: Sequence[Result]) -> str:
    rows = []
    for less, more in ORDERS:
        cells = []
        for run in runs:
            low, high = run.accuracy(less), run.accuracy(more)
            absent = low is None or high is None
            cells.append("not measured" if absent else "pass" if low < high else "FAIL")
        rows.append([f"{less} < {more}", *cells])
    return "## The expected order, seed by seed\n\n" + markdown.table(["order", *(f"seed {r.seed}" for r in runs)], rows)


def _pooled_section(runs: Sequence[Result]) -> str:
    rows = []
    for less, more in ORDERS:
        measured = [run for run in runs if less in run.credits and more in run.credits]
        if measured:
            differences = [run.credits[more] - run.credits[less] for run in measured]
            pooled = bootstrap.pooled(differences, shared_problems=_shared(measured))
            rows.append([f"{more} - {less}", len(measured), *_interval_cells(pooled)])
    drawn = "drawn once for all seeds, which share them" if _shared(runs) else "drawn within each seed"
    note = f"Paired by problem; the interval is over problems, {drawn}, the seeds taken as they are."
    header = ["difference, points", "seeds", "with 95 % interval", "above 0"]
    return f"## Differences, seeds pooled\n\n{note}\n\n{markdown.table(header, rows)}"


def _ablation_section(runs: Sequence[Result], ablation: Sequence[Result], name: str) -> str:
    full = {run.seed: run for run in runs}
    pairs = [(full[other.seed], other) for other in ablation if other.seed in full]
    for run, other in pairs:
        if run.problems != other.problems:
            raise InputError(f"seed {run.seed}: the run and its ablation were not evaluated on the same problems")
    if not pairs:
        raise InputError("no ablation run has the seed of one of --runs, and they are compared seed by seed")
    rows, summary = [], []
    for column in ("rl greedy", "rl vote@32"):
        both = [(run, other) for run, other in pairs if column in run.credits and column in other.credits]
        for run, other in both:
            with_it, without = run.accuracy(column), other.accuracy(column)
            cells = (markdown.percent(with_it), markdown.percent(without), markdown.percent(with_it - without, signed=True))
            rows.append([column, run.seed, *cells])
        if both:
            differences = [run.credits[column] - other.credits[column] for run, other in both]
            difference = bootstrap.two_level(differences, shared_problems=_shared([run for run, _ in both]))
            summary.append([column, len(both), *_interval_cells(difference)])
    unpaired = sorted({run.seed for run in ablation} - set(full))
    note = f"Seeds without a full run, left out: {unpaired}.\n\n" if unpaired else ""
    header = ["measure", "seeds", "mean difference, with 95 % interval over seeds and problems", "above 0"]
    return (
        f"## Ablation: {name}\n\nPaired by seed.\n\n{note}"
        + markdown.table(["measure", "seed", "full", name, "difference"], rows)
        + "\n\n"
        + markdown.table(header, summary)
    )


def _time_section(runs: Sequence[Result]) -> str:
    def median(stage: str, field: str, show: Callable[[float], str]) -> str:
        values = [run.stages[stage][field] for run in runs if field in run.stages.get(stage, {})]
        return show(statistics.median(values)) if values else "–"

    rows = []
    for stage in STAGES:
        if any(stage in run.stages for run in runs):
            times = (median(stage, field, "{:,.1f}".format) for field in ("seconds", "compile_seconds"))
            rows.append([results.label_name(stage), *times, median(stage, "tokens_per_second", "{:,.0f}".format)])
    totals = [
        [sum(summary.get(field, 0) for summary in run.stages.values()) for run in runs]
        for field in ("seconds", "compile_seconds")
    ]
    rows.append(["all stages", *(f"{statistics.median(values):,.1f}" for values in totals), "–"])
    header = ["stage", "seconds", "of which compiling", "tokens/s"]
    return f"## Time, median over the runs\n\n{markdown.table(header, rows)}"


def _shared(runs: Sequence[Result]) -> bool:
    return all(run.problems == runs[0].problems for run in runs)


def _interval_cells(difference: bootstrap.Difference) -> list[str]:
    interval = (difference.low, difference.high)
    return [
        markdown.percent(difference.mean, interval, signed=True),
        "yes" if difference.low > 0 else "NO",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", required=True, metavar="DIR", help="workdirs, each of another seed")
    parser.add_argument("--ablation", nargs="+", default=[], metavar="DIR", help="the ablation's, of the same seeds")
    parser.add_argument("--ablation_name", default="no principles", help="what the ablation goes without")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the page; its plot is saved beside it")
    parser.add_argument("--command", required=True, help="the command that made the runs, as the page should show it")
    flags = parser.parse_args(arguments)
    try:
        runs, ablation = load_all(flags.runs), load_all(flags.ablation)
        plot = flags.output.with_suffix(".png")
        text = page(runs, ablation, flags.ablation_name, flags.command, plot.name)
        flags.output.parent.mkdir(parents=True, exist_ok=True)
        files.write(plot, plots.runs_by_measure(measures_of(runs)))
        files.write(flags.output, text)
    except InputError as error:
        print(f"summarize: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
