"""Principles apart from critiques, on the held-out problems of one run of the tiny experiment: accuracy, ties, tokens and time.

    python experiments/studies/principles_apart.py --run=runs/tiny --output=docs/results

Each judge draws k critiques of every problem

- in the usual way, each with principles of its own;
- with principles that are drawn once and shared by all k (`share_principles`);
- by the right ones, those that the problem was made from, as if a person had written them.

The last policy of the run judges in all these ways. Then, as in Table 14 of the paper, the policy of the cold start
judges by its own principles and by those that the last policy wrote. Writes principles_apart.md.

Time is compared in rounds: in each, all problems are judged in the usual way and with shared principles, one right after the
other and by turns the one or the other first. What counts is the ratio within a round, of seconds on the clock and of seconds
of processor time, which other programs on the machine disturb less.
"""

import pathlib
import time
from typing import NamedTuple

import numpy as np
from absl import flags

from spct_jax import cli, sharding
from spct_jax.data.comparison import Comparison, from_json
from spct_jax.evaluation import bootstrap, metrics
from spct_jax.grm import parse
from spct_jax.judging.judge import Judge
from spct_jax.judging.options import Options
from spct_jax.judging.verdicts import sample_to_json
from spct_jax.reporting import markdown, run_files
from spct_jax.sharding.config import MeshConfig
from spct_jax.toy import world
from spct_jax.toy.config import ToyConfig

FLAGS = flags.FlagValues()
RUN = flags.DEFINE_string("run", None, "Workdir of a finished run.", required=True, flag_values=FLAGS)
PROBLEMS = flags.DEFINE_integer("problems", 0, "How many problems, the first; 0: all.", flag_values=FLAGS)
ROUNDS = flags.DEFINE_integer("rounds", 3, "How often the times of both ways are taken.", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "Directory for the page.", required=True, flag_values=FLAGS)
SLOTS = 256
WARM_UP = 16
"""Problems that are judged before the clock starts, so that programs are compiled."""


class Drawn(NamedTuple):
    """What one way of judging made of the problems."""

    rows: list[dict]
    tokens: int
    prefills: int
    seconds: float
    """On the clock."""
    processor: float
    """Of processor time."""


def draw(run: run_files.RunFiles, judge: Judge, comparisons: list[Comparison], **options) -> Drawn:
    """Judges the problems with the settings of the run's evaluation."""
    settings, k = run.config["evaluation"], max(run.config["evaluation"]["k"])
    options |= {"k": k, "temperature": settings["temperature"], "seed": run.config["seed"], "order": settings["order"]}
    options |= {"max_new_tokens": run.config["data"]["max_completion"], "batch_size": SLOTS // Options(k=k).branches}
    judge.score(comparisons[:WARM_UP], **options)
    start = time.perf_counter(), time.process_time()
    verdicts = judge.score(comparisons, **options)
    seconds, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    rows = [
        {"id": c.id, "n": c.n, "best": c.best, "samples": list(map(sample_to_json, v.samples))}
        for c, v in zip(comparisons, verdicts, strict=True)
    ]
    return Drawn(rows, judge.usage.tokens, judge.usage.prefills, seconds, processor)


def right_principles(comparison: Comparison, config: ToyConfig) -> str:
    """The requirements of a problem of the toy world, as its demonstrator lists them."""
    _, split, index = comparison.id.split("-")
    requirements = world.problem(split, int(index), config).requirements
    listed = enumerate(zip(requirements, world.WEIGHTS, strict=True), start=1)
    return "\n".join(f"- {word} ({number}) weight {weight}" for number, (word, weight) in listed)


def first_principles(drawn: Drawn, parts: tuple[str, ...]) -> dict[str, str]:
    """By id, the principles of the first critique that has some."""
    found = {}
    for row in drawn.rows:
        texts = (parse.principles(sample["text"], parts) for sample in row["samples"])
        found[row["id"]] = next((text for text in texts if text), None)
    return {id: text for id, text in found.items() if text}


def lines_of(name: str, drawn: Drawn, usual: Drawn) -> list[str]:
    """Rows of the table: one way of judging, at every k."""
    k = len(usual.rows[0]["samples"])
    found = []
    for m in (m for m in (1, 8, 32) if m <= k):
        one, other = metrics.tally(drawn.rows, m), metrics.tally(usual.rows, m)
        gap = bootstrap.paired(one.credit, other.credit)
        difference = "" if drawn is usual else markdown.percent(gap.mean, (gap.low, gap.high), signed=True)
        found.append(f"| {name} | {m} | {100 * one.accuracy:.2f} | {difference} | {one.tie_rate:.2%} ")
        found[-1] += f"| {drawn.tokens:,} | {drawn.prefills:,} |" if m == k else "| | |"
    return found


def take_times(run: run_files.RunFiles, judge: Judge, comparisons: list[Comparison]) -> list[str]:
    """Rows of the table of times: both ways in each round, and their ratios."""
    lines, ratios = [], []
    for number in range(ROUNDS.value):
        order = (False, True) if number % 2 == 0 else (True, False)
        took = {shared: draw(run, judge, comparisons, share_principles=shared) for shared in order}
        pairs = [(took[False].seconds, took[True].seconds), (took[False].processor, took[True].processor)]
        ratios.append([shared / usual for usual, shared in pairs])
        cells = [f"{seconds:.1f}" for pair in pairs for seconds in pair]
        first = "shared" if order[0] else "own"
        clock, processor = ratios[-1]
        lines.append(
            f"| {number + 1} | {first} | {cells[0]} | {cells[1]} | {clock:.2f} | {cells[2]} | {cells[3]} | {processor:.2f} |"
        )
    clock, processor = np.median(ratios, axis=0)
    return [*lines, f"| median | | | | {clock:.2f} | | | {processor:.2f} |"]


def main(_) -> None:
    """Judges, and writes the page."""
    run = run_files.read_run_files(RUN.value)
    policies = [p for p, s in run.samples.items() if "greedy" in s and "@" not in p]
    first, last = policies[0], policies[-1]
    sharding.use_devices(MeshConfig(run.config["mesh"]["cpu_devices"]))
    shown = [from_json(p, f"{RUN.value}: {p['id']}", p["id"]) for p in run.problems.values() if len(p["responses"]) > 1]
    shown, toy = shown[: PROBLEMS.value or None], ToyConfig(**_tuples(run.config["data"]["toy"]))
    judge = Judge.load(pathlib.Path(RUN.value) / last)
    right = {comparison.id: right_principles(comparison, toy) for comparison in shown}
    parts, k = judge.models.policy.prompter.template.parts, max(run.config["evaluation"]["k"])
    usual = draw(run, judge, shown)
    ways = {
        f"{last}, own principles": (usual, usual),
        f"{last}, shared by all critiques": (draw(run, judge, shown, share_principles=True), usual),
        f"{last}, the right ones": (draw(run, judge, shown, principles=right), usual),
    }
    times = take_times(run, judge, shown)
    judge = Judge.load(pathlib.Path(RUN.value) / first)
    own = draw(run, judge, shown)
    ways[f"{first}, own principles"] = own, own
    ways[f"{first}, those of {last}"] = draw(run, judge, shown, principles=first_principles(usual, parts)), own
    shared = ways[f"{last}, shared by all critiques"][0]
    different = np.mean([len({sample["text"] for sample in row["samples"]}) for row in shared.rows])
    lines = [
        "# Principles apart",
        "",
        "Made by `experiments/studies/principles_apart.py`, which says what it does.",
        "",
        f"{len(shown)} problems of the {run.config['evaluation']['split']} split with several responses, seed "
        f"{run.config['seed']}, temperature {run.config['evaluation']['temperature']:g}. Accuracy in percent, a tie counted by "
        "its chance; differences in points to the same policy's own principles at the same k, paired, with 95 % bootstrap "
        "intervals; tokens drawn and prompts computed are those of the largest k. With shared principles a problem "
        f"had {different:.1f} different critiques on average.",
        "",
        "| principles | k | accuracy | difference | ties | tokens | prompts |",
        "| --- | --: | --: | --: | --: | --: | --: |",
        *(line for name, (drawn, base) in ways.items() for line in lines_of(name, drawn, base)),
        "",
        f"Seconds for {k} critiques of all problems by {last}, with its own principles for each critique and with shared ones:",
        "",
        "| round | first | own, clock | shared, clock | ratio | own, processor | shared, processor | ratio |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
        *times,
    ]
    output = pathlib.Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    (output / "principles_apart.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _tuples(fields: dict) -> dict:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


if __name__ == "__main__":
    cli.run(main, FLAGS)
