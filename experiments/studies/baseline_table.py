"""What the rows of the paper's Table 2 reach in the tiny experiment, and the arithmetic of training each.

Reads workdirs of finished runs and runs nothing. Arithmetic is counted by `models.flops` on the shapes that are computed,
padding included: updates, draws, and the scores of the reference policy. The evaluation does not count. What a stage says of
itself (`flops` in its summary) is taken; the stages of the GRM are counted here. Runs of one name are the seeds of one system.

    python experiments/studies/baseline_table.py --runs grm=runs/tiny grm=runs/tiny1 btrm=runs/btrm --output=table.md
"""

import argparse
import collections
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from spct_jax import config as configs
from spct_jax.errors import InputError
from spct_jax.models import flops, sizes
from spct_jax.reporting import markdown, results, run_files
from spct_jax.storage import files
from spct_jax.training import mixture

MEASURES = ("greedy", "vote@1", "vote@8", "vote@32", "meta@8", "meta@32")
IN_PAIRS = {"sft": 1.0, "rft": 0.6}
"""Share of the completions that judge which share a prompt with another: of demonstrations all, of kept draws about this."""


def arithmetic(stage: str, summary: Mapping[str, Any], config: configs.Config, model: sizes.ModelConfig) -> float:
    """Floating-point operations of a finished stage of the tiny experiment; 0 for the evaluation."""
    P, T, chosen = config.data.max_prompt - 1, config.data.max_completion, getattr(config, stage, None)
    if "flops" in summary:
        return summary["flops"]
    if stage in IN_PAIRS:
        rows = mixture.rows_of(chosen.batch_size, chosen.general_fraction, IN_PAIRS[stage]).groups()
        return summary["steps"] * sum(flops.update(model, n, size, P, T) for size, n in rows.items())
    if stage == "rejection":
        return 2 * flops.prefill(model, chosen.problems, P) + summary["tokens"] * flops.decode(model, 1, P)
    if stage == "rl":
        shape = chosen.batch_size, chosen.group_size, P, T
        each = flops.prefill(model, chosen.batch_size, P) + flops.forward(model, *shape) + flops.update(model, *shape)
        return summary["steps"] * each + summary["tokens"] * flops.decode(model, 1, P)
    if stage == "meta_rm":
        return summary["steps"] * flops.update(model, chosen.batch_size, 4, P, T + 1, logits=False)
    return 0.0


def page(runs: Sequence[tuple[str, pathlib.Path]]) -> str:
    """In Markdown: accuracies over the seeds of each system, those of every run, and arithmetic.

    Args:
      runs: (system, workdir), one for every seed of every system.
    """
    config, model = configs.tiny(), sizes.toy(640)
    stages = [stage for stage in configs.STAGES if stage != "evaluate"]
    by_policy, every, spent = collections.defaultdict(lambda: collections.defaultdict(list)), [], []
    for name, workdir in runs:
        run = run_files.read_run_files(workdir)
        seed = run.config["seed"]
        for label, tallies in results.tallies(run).items():
            found = {measure: tallies[measure].accuracy for measure in MEASURES if measure in tallies}
            for measure, accuracy in found.items():
                by_policy[name, results.label_name(label)][measure].append(accuracy)
            problems = len(next(iter(tallies.values())).credit)
            cells = [markdown.percent(found.get(measure)) for measure in MEASURES]
            every.append([name, results.label_name(label), seed, problems, *cells])
        each = {stage: arithmetic(stage, run.stages[stage], config, model) for stage in stages if stage in run.stages}
        cells = [f"{each[stage] / 1e12:.2f}" if stage in each else "–" for stage in stages]
        spent.append([name, seed, *cells, f"{sum(each.values()) / 1e12:.2f}"])
    over_seeds = [[*policy, *(_over_seeds(found[measure]) for measure in MEASURES)] for policy, found in by_policy.items()]
    return "\n\n".join(
        [
            markdown.table(["system", "model", *MEASURES], over_seeds),
            markdown.table(["system", "model", "seed", "problems", *MEASURES], every),
            markdown.table(["10^12 operations", "seed", *map(results.label_name, stages), "sum"], spent),
        ]
    )


def _over_seeds(accuracies: Sequence[float]) -> str:
    """The mean, and the lowest and the highest of several."""
    if not accuracies:
        return markdown.percent(None)
    return markdown.percent(statistics.fmean(accuracies), (min(accuracies), max(accuracies)) if accuracies[1:] else None)


def main() -> int:
    """Writes the tables; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", required=True, metavar="NAME=WORKDIR")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    flags = parser.parse_args()
    runs = [(name, pathlib.Path(workdir)) for name, _, workdir in (run.partition("=") for run in flags.runs)]
    try:
        files.write(flags.output, page(runs).encode() + b"\n")
    except InputError as error:
        print(f"baseline_table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
