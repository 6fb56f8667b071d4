r"""What RL changed, by source, from the rollouts that a run logs; no weights are needed.

    python experiments/studies/human_rollouts.py --rollouts=runs/gemma3_270m/grm/rl/rollouts

The steps are cut into equal parts. In the first pass over the training comparisons RL has seen none of those that it draws, so
that the parts tell its progress, though on different comparisons; the difference of the last part from the first is taken
within each source, and weighs sources alike in both. Prints two tables and what a group's vote gains; a few seconds on a CPU.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import human_report
import numpy as np
from absl import flags
from human_credits import source_of

from spct_jax import cli
from spct_jax.data.jsonl import read_jsonl
from spct_jax.errors import InputError
from spct_jax.evaluation import bootstrap
from spct_jax.grm import rewards, voting
from spct_jax.reporting import markdown

FLAGS = flags.FlagValues()
ROLLOUTS = flags.DEFINE_string("rollouts", None, "Directory of a run's rollouts.", required=True, flag_values=FLAGS)
PARTS = flags.DEFINE_integer("parts", 4, "Into how many parts the steps are cut.", 2, flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Group:
    """What was drawn for one comparison in one step.

    Attributes:
      part: of the steps, from 0.
      source: of the comparison.
      scores: of each completion, in input order; None where they cannot be read.
      truth: scores of the responses.
    """

    part: int
    source: str
    scores: Sequence[Sequence[float] | None]
    truth: Sequence[float]

    def credit(self, totals: Sequence[float] | None) -> float:
        """Of scores: a tie between t responses counts 1/t, and so do all n where there are no scores."""
        return voting.expected_credit(totals, int(np.argmax(self.truth)), len(self.truth))


MEASURES: dict[str, Callable[[Group], float]] = {
    "right by Eq. 10": lambda g: np.mean([rewards.is_correct(s, g.truth) for s in g.scores]),
    "ties shared": lambda g: np.mean([g.credit(s) for s in g.scores]),
    "vote of the group": lambda g: g.credit(voting.sum_vote(g.scores, len(g.truth))),
    "ties": lambda g: np.mean([voting.is_tie(s) for s in g.scores if s is not None] or [0.0]),
    "malformed": lambda g: np.mean([s is None for s in g.scores]),
}


def read(directory: pathlib.Path, parts: int) -> list[Group]:
    """All groups of a run.

    Raises:
      InputError: there are fewer files than parts, or one of them holds something else.
    """
    steps = sorted(directory.glob("*.jsonl"))
    if len(steps) < parts:
        raise InputError(f"{directory}: holds rollouts of {len(steps)} steps, for {parts} parts")
    found = []
    for number, path in enumerate(steps):
        for line, record in read_jsonl(path):
            if missing := [field for field in ("id", "scores", "truth") if field not in record]:
                raise InputError(f"{path}:{line}: no field {missing[0]!r}; a rollout has it")
            found.append(Group(number * parts // len(steps), source_of(record["id"]), record["scores"], record["truth"]))
    return found


def progress(groups: Sequence[Group], parts: int) -> str:
    """Every measure by source and part of the steps."""
    sources = sorted({g.source for g in groups}, key=lambda name: -sum(g.source == name for g in groups))
    rows = []
    for source in ("all", *sources):
        for part in range(parts):
            chosen = [g for g in groups if g.part == part and source in ("all", g.source)]
            cells = [human_report.accuracy(np.array([measure(g) for g in chosen])) for measure in MEASURES.values()]
            rows.append([source, f"{part + 1} of {parts}", len(chosen), *cells])
    return markdown.table(["source", "part", "groups", *MEASURES], [row for row in rows if row[2]])


def change(groups: Sequence[Group], parts: int, seed: int = 0) -> str:
    """Every measure of the last part less that of the first, with its interval over groups drawn anew within each source."""
    rng, rows = np.random.default_rng(seed), []
    both = [{g.source for g in groups if g.part == part} for part in (0, parts - 1)]
    weights = {source: np.mean([g.source == source for g in groups]) for source in sorted(both[0] & both[1])}
    for name, measure in MEASURES.items():
        mean, means = 0.0, 0.0
        for source, weight in weights.items():
            first, last = (np.array([measure(g) for g in groups if g.source == source and g.part == p]) for p in (0, parts - 1))
            mean += weight * (last.mean() - first.mean())
            means += weight * (bootstrap.resampled_means(last, rng) - bootstrap.resampled_means(first, rng))
        rows.append([name, markdown.percent(mean, bootstrap.percentiles(means), signed=True)])
    return markdown.table(["measure", "last part less the first"], rows)


def gain(groups: Sequence[Group]) -> str:
    """What the vote of a group has ahead of one of its verdicts, ties shared, over all groups."""
    vote, single = (np.array([MEASURES[name](g) for g in groups]) for name in ("vote of the group", "ties shared"))
    return f"a group's vote less one of its verdicts, over {len(groups):,} groups: {human_report.difference(vote, single)}"


def main(_) -> None:
    """Reads, and prints."""
    groups = read(pathlib.Path(ROLLOUTS.value), PARTS.value)
    print(progress(groups, PARTS.value))
    print("\n" + change(groups, PARTS.value))
    print("\n" + gain(groups))


if __name__ == "__main__":
    cli.run(main, FLAGS)
