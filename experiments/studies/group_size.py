"""How many completions of a prompt RL should draw, and of which prompts, in the tiny experiment.

    python experiments/studies/group_size.py --workdir=runs/group_size --settings=plain-4,dynamic-4,short-4 --output=page.md

Each step learns from 128 completions, and there are as many steps as give every run the update tokens of `--steps` of G = 4. A
run draws its groups in one of these ways:

- `plain`: of all training comparisons.
- `filtered`: of those that the cold start did not get right in all three rejection draws, as the paper does.
- `dynamic`: as `plain`, up to eight batches a step, until all groups that it learns from have unequal rewards.
- `short`: as `dynamic`, in so many fewer steps that it should take as long as `plain`.

All runs of a seed go on from the same stages before RL, whose rejection sampling draws on all training comparisons. What is
compared are greedy verdicts on all development problems. What is finished is not run again. Processor seconds are those of the
RL stage with tracing and, where no compiled program is kept from before, compiling.
"""

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from spct_jax import cli, config, pipeline, sharding
from spct_jax.errors import InputError
from spct_jax.evaluation import bootstrap
from spct_jax.reporting import markdown, plots, results, run_files
from spct_jax.runtime import memory
from spct_jax.storage import files, paths

COMPLETIONS, PAPER = 128, 4
"""That a step learns from; the paper's G."""
PROMPT, COMPLETION = 72, 67
"""Mean tokens of a prompt and of a completion, by which steps are made equal in tokens."""
WARMUP = 10 / 24
"""Share of the steps, as in the tiny experiment; ten steps would be most of a run of twelve, and not of a longer one."""
DRAWING = 0.4
"""Share of a plain step's time that drawing takes, from the tiny experiment alone on its machine (docs/results/tiny.md): RL has
6,505 tokens/s, rejection sampling and evaluation, which only draw, about 16,000."""
DRAWN = {4: 4.3, 8: 3.2, 16: 2.5, 32: 1.7}
"""Groups that a dynamic step draws, in whole batches, for each that it learns from: measured at 4 and 8, assumed at 16 and 32.
Only `short` depends on it."""
WAYS = ("plain", "filtered", "dynamic", "short")
BEFORE = ("sft", "rejection", "rft")
BATCHES = 8
"""That a dynamic step may draw."""

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "Where the runs go.", required=True, flag_values=FLAGS)
SEEDS = flags.DEFINE_list("seeds", ["10"], "Seeds of the runs.", flag_values=FLAGS)
SETTINGS = flags.DEFINE_list(
    "settings", ["plain-4", "dynamic-4"], f"WAY-G each; a way is one of {', '.join(WAYS)}.", flag_values=FLAGS
)
STEPS = flags.DEFINE_integer("steps", 12, "Steps at G = 4.", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "The page; its plot lies beside it.", required=True, flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to spend the same update tokens, or, if short, the same time."""

    steps: int
    """At G = 4."""
    way: str
    group_size: int

    @property
    def name(self) -> str:
        """Of its runs."""
        return f"G{self.group_size}-{self.steps}-{self.way}"

    @property
    def cells(self) -> list[str | int]:
        """Of its rows in a table."""
        return [self.way, self.group_size, self.updates]

    @property
    def updates(self) -> int:
        """Steps at this G."""
        groups = DRAWN[self.group_size] if self.way == "short" else 1.0
        return round(self.steps * _tokens(PAPER) / _tokens(self.group_size) / step_time(groups))

    def apply(self, rl: config.RLConfig) -> None:
        """Changes the stage."""
        rl.group_size, rl.batch_size, rl.steps = self.group_size, COMPLETIONS // self.group_size, self.updates
        rl.optimizer.warmup_steps = round(WARMUP * self.updates)
        rl.dynamic_sampling = BATCHES if self.way in ("dynamic", "short") else 1
        rl.drop_solved = self.way == "filtered"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one run came to."""

    setting: Setting
    seed: int
    greedy: np.ndarray
    """Credit of each problem."""
    mixed: float
    """Share of the groups drawn with unequal rewards."""
    learned: float
    """The same of the groups that it learnt from."""
    drawn: float
    """Groups drawn for each that it learnt from."""
    seconds: float
    """Processor seconds of the stage."""

    @property
    def time(self) -> float:
        """Of the stage, in plain steps."""
        return self.setting.updates * step_time(self.drawn)


def step_time(drawn: float) -> float:
    """Of a step that draws so many groups for each that it learns from, in plain steps of the same G."""
    return 1 - DRAWING + DRAWING * drawn


def _tokens(group_size: int) -> float:
    """Update tokens of a step."""
    return COMPLETIONS // group_size * (PROMPT + group_size * COMPLETION)


def experiment(seed: int, stages: Sequence[str]) -> config.Config:
    """The tiny experiment with these stages; judged on development problems, greedily."""
    made = config.tiny()
    made.seed, made.stages = seed, tuple(stages)
    made.rejection.problems, made.rejection.batch_size = 0, 1024
    made.evaluation.split, made.evaluation.problems, made.evaluation.k = "development", 0, (1,)
    return made


def run(workdir: pathlib.Path, seed: int, setting: Setting) -> Outcome:
    """Makes a run, unless it is there, and the stages that it goes on from before it."""
    before, target = workdir / f"seed{seed}", workdir / f"seed{seed}-{setting.name}"
    if not (before / BEFORE[-1] / "summary.json").exists():
        pipeline.train(experiment(seed, BEFORE), paths.of(before))
    if not (target / "evaluate" / "summary.json").exists():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(before, target)
        chosen = experiment(seed, (*BEFORE, "rl"))
        setting.apply(chosen.rl)
        begun = time.process_time()
        pipeline.train(chosen, paths.of(target))
        files.write_json(paths.of(target / "rl" / "processor_seconds.json"), {"seconds": time.process_time() - begun})
        chosen.stages += ("evaluate",)
        pipeline.train(chosen, paths.of(target))
        memory.give_back()
    return read(target, seed, setting)


def read(target: pathlib.Path, seed: int, setting: Setting) -> Outcome:
    """What a finished run came to."""
    found = run_files.read_run_files(target)
    seconds = files.read_json(paths.of(target / "rl" / "processor_seconds.json"))["seconds"]
    credit, rl = results.tallies(found)["rl"]["greedy"].credit, found.stages["rl"]
    drawn = rl["groups_drawn"] * setting.group_size / COMPLETIONS
    return Outcome(setting, seed, credit, 1 - rl["zero_spread"], rl["with_signal"], drawn, seconds)


def page(outcomes: Sequence[Outcome], plot: str) -> str:
    """Every run, then how far every setting is from plain groups of four, and from groups of four drawn in its own way."""
    rows = [
        [
            *o.setting.cells,
            o.seed,
            markdown.percent(float(o.greedy.mean())),
            markdown.percent(o.mixed),
            markdown.percent(o.learned),
            f"{o.drawn:.2f}",
            f"{o.time:.1f}",
            f"{o.seconds:.0f}",
        ]
        for o in outcomes
    ]
    found = {(o.setting, o.seed): o.greedy for o in outcomes}
    differences = []
    for setting in dict.fromkeys(o.setting for o in outcomes):
        seeds = [o.seed for o in outcomes if o.setting == setting]
        others = (Setting(setting.steps, way, PAPER) for way in ("plain", setting.way))
        differences.append([*setting.cells, len(seeds), *(difference(found, setting, other, seeds) for other in others)])
    header = ["groups", "G", "steps"]
    columns = ["seed", "rl greedy, %", "mixed of those drawn, %", "of those learned from, %", "drawn for one learned from"]
    return "\n\n".join(
        (
            "# How many completions of a prompt, and of which prompts",
            markdown.table([*header, *columns, "time, plain steps", "processor seconds"], rows),
            "Greedy, points, with 95 % interval over seeds and problems, minus that of groups of four:",
            markdown.table([*header, "seeds", "plain", "drawn in the same way"], differences),
            f"![greedy accuracy by group size]({plot})",
        )
    )


def difference(found: Mapping[tuple[Setting, int], np.ndarray], setting: Setting, other: Setting, seeds: Sequence[int]) -> str:
    """Of two settings' accuracy, paired by seed and problem; empty where they are the same or have no seed in common."""
    pairs = [found[setting, s] - found[other, s] for s in seeds if setting != other and (other, s) in found]
    if not pairs:
        return ""
    over = bootstrap.two_level(pairs, shared_problems=True)
    return markdown.percent(over.mean, (over.low, over.high), signed=True)


def parse(steps: int, text: str) -> Setting:
    """A setting from one of `--settings`."""
    way, _, size = text.partition("-")
    if way not in WAYS or size not in map(str, DRAWN):
        raise InputError(
            f"--settings: {text!r} is not one of {', '.join(WAYS)}, a dash and one of {', '.join(map(str, DRAWN))}"
        )
    return Setting(steps, way, int(size))


def main(_) -> None:
    """Makes what is missing, and writes the page."""
    workdir, output = pathlib.Path(WORKDIR.value).absolute(), pathlib.Path(OUTPUT.value)
    sharding.use_devices(config.tiny().mesh)
    settings = [parse(STEPS.value, text) for text in SETTINGS.value]
    outcomes = [run(workdir, int(seed), setting) for seed in SEEDS.value for setting in settings]
    outcomes.sort(key=lambda o: (WAYS.index(o.setting.way), o.setting.group_size, o.seed))
    measures: dict[str, dict[str, float]] = {}
    for o in outcomes:
        label = f"{o.setting.way}\nG = {o.setting.group_size}"
        measures.setdefault(label, {})[f"seed {o.seed}"] = float(o.greedy.mean())
    output.with_suffix(".png").write_bytes(plots.runs_by_measure(measures))
    output.write_text(page(outcomes, output.with_suffix(".png").name) + "\n")


if __name__ == "__main__":
    cli.run(main, FLAGS)
