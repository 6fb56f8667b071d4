"""How many completions of a prompt RL should draw: RL alone, by group size and filter, from one policy after RFT per seed.

    python experiments/studies/group_size.py --workdir=runs/group_size --seeds=10,11 --output=docs/results/group_size.md

Each step draws 128 completions; there are as many steps as give every run the update tokens of 24 steps of G = 4, or of 12,
since 24 leave next to nothing to learn. What is compared are greedy verdicts on development problems. Rejection sampling draws
on all training comparisons, for the filter. What is finished is not run again. Processor seconds are those of the RL stage with
tracing; where no compiled program is kept from before, a size's first run also compiles.
"""

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Sequence

import numpy as np
from absl import flags

from spct_jax import cli, config, files, memory, paths, pipeline, sharding
from spct_jax.evaluation import bootstrap
from spct_jax.reporting import markdown, plots, results, run_files

COMPLETIONS, PAPER = 128, 4
"""Of a step; the paper's G."""
PROMPT, COMPLETION = 72, 67
"""Mean tokens of a prompt and of a completion, by which steps are made equal in tokens."""
BEFORE = ("sft", "rejection", "rft")
KEPT = (*BEFORE, "data", "config.json", "data.json", "tokenizer.model")
"""What a run takes over from its base."""

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "Where the runs go.", required=True, flag_values=FLAGS)
SEEDS = flags.DEFINE_list("seeds", ["10", "11"], "Seeds of the runs.", flag_values=FLAGS)
SIZES = flags.DEFINE_list("sizes", ["4", "16", "8", "32"], "Group sizes.", flag_values=FLAGS)
STEPS = flags.DEFINE_list("steps", ["12", "24"], "Steps at G = 4.", flag_values=FLAGS)
FILTERED = flags.DEFINE_list(
    "filtered", [], "Those that are run with the filter, too, at the first of `steps`.", flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string("output", None, "The page; its plot lies beside it.", required=True, flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to spend the same update tokens."""

    steps: int
    """At G = 4."""
    group_size: int
    filtered: bool
    """Whether what the cold start solves in three draws of three is left out."""

    @property
    def name(self) -> str:
        """Of its runs."""
        return f"G{self.group_size}-{self.steps}{'-filtered' * self.filtered}"

    @property
    def cells(self) -> list[str | int]:
        """Of its rows in a table."""
        return [self.steps, f"{self.group_size}{', filtered' * self.filtered}"]

    def apply(self, rl: config.RLConfig) -> None:
        """Changes the stage."""
        rl.group_size, rl.batch_size = self.group_size, COMPLETIONS // self.group_size
        rl.steps = round(self.steps * _tokens(PAPER) / _tokens(self.group_size))
        rl.drop_solved = self.filtered


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one run came to."""

    setting: Setting
    seed: int
    greedy: np.ndarray
    """Credit of each problem."""
    mixed: float
    """Share of groups with unequal rewards."""
    seconds: float
    """Processor seconds of the stage."""


def _tokens(group_size: int) -> float:
    """Update tokens of a step."""
    return COMPLETIONS // group_size * (PROMPT + group_size * COMPLETION)


def experiment(seed: int, stages: Sequence[str]) -> config.Config:
    """The tiny experiment with these stages, judged on development problems by greedy verdicts."""
    made = config.tiny()
    made.seed, made.stages = seed, tuple(stages)
    made.rejection.problems, made.rejection.batch_size = 0, 1024
    made.evaluation.split, made.evaluation.problems, made.evaluation.k = "development", 500, (1,)
    return made


def run(workdir: pathlib.Path, seed: int, setting: Setting) -> Outcome:
    """Makes a run, unless it is there, and the base of its seed before it."""
    base, target = workdir / f"seed{seed}", workdir / f"seed{seed}-{setting.name}"
    if not (base / "evaluate" / "summary.json").exists():
        pipeline.train(experiment(seed, (*BEFORE, "evaluate")), paths.of(base))
    if not (target / "evaluate" / "summary.json").exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for name in KEPT:
            (shutil.copytree if (base / name).is_dir() else shutil.copy)(base / name, target / name)
        chosen = experiment(seed, (*BEFORE, "rl"))
        setting.apply(chosen.rl)
        begun = time.process_time()
        pipeline.train(chosen, paths.of(target))
        files.write_json(paths.of(target / "rl" / "processor_seconds.json"), {"seconds": time.process_time() - begun})
        chosen.stages = (*BEFORE, "rl", "evaluate")
        pipeline.train(chosen, paths.of(target))
        memory.give_back()
    return read(target, seed, setting)


def read(target: pathlib.Path, seed: int, setting: Setting) -> Outcome:
    """What a finished run came to."""
    found = run_files.read_run_files(target)
    seconds = files.read_json(paths.of(target / "rl" / "processor_seconds.json"))["seconds"]
    credit = results.tallies(found)["rl"]["greedy"].credit
    return Outcome(setting, seed, credit, 1 - found.stages["rl"]["zero_spread"], seconds)


def page(outcomes: Sequence[Outcome], plot: str) -> str:
    """Every run, then the difference of every other setting from the paper's, paired by seed and problem."""
    rows = [
        [*o.setting.cells, o.seed, markdown.percent(float(o.greedy.mean())), markdown.percent(o.mixed), f"{o.seconds:.0f}"]
        for o in outcomes
    ]
    found, differences = {(o.setting, o.seed): o for o in outcomes}, []
    for setting in dict.fromkeys(o.setting for o in outcomes):
        paper = Setting(setting.steps, PAPER, filtered=False)
        pairs = [(o, found[paper, o.seed]) for o in outcomes if o.setting == setting != paper and (paper, o.seed) in found]
        if pairs:
            pooled = bootstrap.pooled([o.greedy - other.greedy for o, other in pairs])
            mean, low, high = (100 * x for x in (pooled.mean, pooled.low, pooled.high))
            differences.append([*setting.cells, len(pairs), f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"])
    header = ["steps at G = 4", "G"]
    return "\n\n".join(
        (
            "# How many completions of a prompt",
            markdown.table([*header, "seed", "rl greedy, %", "mixed groups, %", "processor seconds of RL"], rows),
            markdown.table([*header, "seeds", "greedy minus that of G = 4, points, with 95 % interval"], differences),
            f"![greedy accuracy by group size]({plot})",
        )
    )


def main(_) -> None:
    """Makes what is missing, and writes the page."""
    workdir, output = pathlib.Path(WORKDIR.value), pathlib.Path(OUTPUT.value)
    sharding.use_devices(config.tiny().mesh)
    settings = [Setting(int(steps), int(size), filtered=False) for steps in STEPS.value for size in SIZES.value]
    settings += [Setting(int(STEPS.value[0]), int(size), filtered=True) for size in FILTERED.value]
    outcomes = [run(workdir, int(seed), setting) for setting in settings for seed in SEEDS.value]
    outcomes.sort(key=lambda o: (o.setting.steps, o.setting.filtered, o.setting.group_size, o.seed))
    measures: dict[str, dict[str, float]] = {}
    for o in outcomes:
        label = f"{o.setting.steps} steps\nG = {o.setting.group_size}" + "\nfiltered" * o.setting.filtered
        measures.setdefault(label, {})[f"seed {o.seed}"] = float(o.greedy.mean())
    output.with_suffix(".png").write_bytes(plots.runs_by_measure(measures))
    output.write_text(page(outcomes, output.with_suffix(".png").name) + "\n")


if __name__ == "__main__":
    cli.run(main, FLAGS)
