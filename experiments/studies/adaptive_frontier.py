"""How many samples an adaptive vote saves, and what it costs: the frontier of accuracy against samples.

The stored samples of a run are voted on again, round by round, at several error rates: a replay of `judging.adaptive`.
With --live the judge itself draws adaptively at one of them, which must come to the same as the replay.

    python experiments/studies/adaptive_frontier.py --run=runs/tiny --live=0.02 --output=docs/results

Writes adaptive.md and adaptive.png. The prior in `judging/adaptive.py` was chosen on development problems.
"""

import dataclasses
import io
import pathlib

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from spct_jax import cli, sharding
from spct_jax.data.comparison import from_json
from spct_jax.evaluation import bootstrap
from spct_jax.grm import voting
from spct_jax.judging import adaptive
from spct_jax.judging.judge import Judge
from spct_jax.judging.options import Options
from spct_jax.judging.verdicts import sample_to_json
from spct_jax.reporting import markdown, run_files
from spct_jax.reporting.plots import BLUE, GREY, VERMILLION
from spct_jax.sharding.config import MeshConfig

RATES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
LABELLED = (0.002, 0.02, 0.2)
"""Those named in the picture, where the others would crowd."""

FLAGS = flags.FlagValues()
RUN = flags.DEFINE_string("run", None, "Workdir of a finished run.", required=True, flag_values=FLAGS)
LIVE = flags.DEFINE_float("live", 0.0, "Error rate at which to draw once more, adaptively; 0: do not.", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "Directory for the page.", required=True, flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Votes:
    """Per problem: samples used, credit, the responses named, several in a tie (none without a valid sample)."""

    used: np.ndarray
    credit: np.ndarray
    named: list

    def against(self, full: "Votes", k: int) -> str:
        """One row of the table."""
        gap = bootstrap.paired(self.credit, full.credit)
        other = np.mean([a != b for a, b in zip(self.named, full.named, strict=True)])
        return (
            f"{self.used.mean() / k:.1%} | {100 * self.credit.mean():.2f} | "
            f"{markdown.percent(gap.mean, (gap.low, gap.high), signed=True)} | {other:.2%}"
        )


def vote(rows: list[dict], counts: list[int]) -> Votes:
    """Votes by the first so many samples of each problem."""
    totals = [voting.sum_vote([s["scores"] for s in row["samples"][:m]], row["n"]) for row, m in zip(rows, counts, strict=True)]
    credit = [voting.expected_credit(t, row["best"], row["n"]) for t, row in zip(totals, rows, strict=True)]
    return Votes(np.array(counts), np.array(credit), [*map(voting.winners, totals)])


def stops(row: dict, k: int, error: float) -> int:
    """Samples an adaptive vote takes, in rounds of one per order."""
    scores = [s["scores"] for s in row["samples"][:k]]
    ends = [*range(row["n"], k, row["n"]), k]
    return next(m for m in ends if m == k or adaptive.decided(scores[:m], row["n"], k, error))


def live(run: run_files.RunFiles, policy: str, rows: list[dict], k: int, error: float) -> tuple[Votes, bool]:
    """Votes that the judge drew adaptively, and whether every sample is the stored one."""
    settings = run.config["evaluation"]
    sharding.use_devices(MeshConfig(run.config["mesh"]["cpu_devices"]))
    judge = Judge.load(pathlib.Path(RUN.value) / policy)
    shown = [run.problems[row["id"]] for row in rows]
    comparisons = [from_json(p, f"{RUN.value}: {p['id']}", p["id"]) for p in shown]
    data = run.config["data"]
    verdicts = judge.score(
        comparisons,
        k=k,
        adaptive=error,
        temperature=settings["temperature"],
        seed=run.config["seed"],
        order=settings["order"],
        buckets=(*(tuple(b) for b in settings["buckets"]), (data["max_prompt"], data["max_completion"])),
        batch_size=settings["slots"] // Options(k=k).branches,
    )
    drawn = [{**row, "samples": [sample_to_json(s) for s in v.samples]} for row, v in zip(rows, verdicts, strict=True)]
    same = all(
        tuple(a["scores"] or ()) == tuple(b["scores"] or ())
        for new, old in zip(drawn, rows, strict=True)
        for a, b in zip(new["samples"], old["samples"], strict=False)
    )
    return vote(drawn, [v.k for v in verdicts]), same


def draw_figure(points: dict[float, Votes], fixed: dict[int, Votes], k: int) -> bytes:
    """Accuracy against samples, adaptive and with a fixed number."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for votes, colour, name in ((fixed, GREY, "fixed number of samples"), (points, BLUE, "adaptive, by error rate")):
        xs = [v.used.mean() for v in votes.values()]
        axes.plot(xs, [100 * v.credit.mean() for v in votes.values()], "o-", color=colour, label=name, markersize=4)
    for error in LABELLED:
        at = points[error].used.mean(), 100 * points[error].credit.mean()
        axes.annotate(f"{error:g}", at, textcoords="offset points", xytext=(4, 6), color=BLUE)
    axes.axhline(100 * fixed[k].credit.mean(), color=VERMILLION, linewidth=0.8, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(fixed), [str(m) for m in fixed])
    axes.set_xlabel("samples per problem, mean")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def main(_) -> None:
    """Replays, draws live if asked to, and writes the page."""
    run = run_files.read_run_files(RUN.value)
    policy, samples = next((p, s["sampled"]) for p, s in run.samples.items() if "sampled" in s and "@" not in p)
    rows = [row for row in samples if row["n"] > 1]
    k = len(rows[0]["samples"])
    fixed = {m: vote(rows, [m] * len(rows)) for m in (1, 2, 4, 8, 16, 32) if m <= k}
    points = {error: vote(rows, [stops(row, k, error) for row in rows]) for error in RATES}
    lines = [
        "# Adaptive voting",
        "",
        "Made by `experiments/studies/adaptive_frontier.py`, which says what it does.",
        "",
        f"{len(rows)} problems of the {run.config['evaluation']['split']} split, seed {run.config['seed']}, policy {policy}; "
        f"vote@{k} has an accuracy of {100 * fixed[k].credit.mean():.2f}. Samples as a share of {k}; differences to vote@{k} "
        "in points, paired, with 95 % bootstrap intervals; disagreement is the share of problems that get another verdict.",
        "",
        "| error rate | samples | accuracy | difference | disagreement |",
        "| --- | --: | --: | --: | --: |",
        *(f"| {error:g} | {votes.against(fixed[k], k)} |" for error, votes in points.items()),
        *(f"| none, {m} samples | {votes.against(fixed[k], k)} |" for m, votes in fixed.items() if m < k),
        "",
        "![accuracy against samples](adaptive.png)",
    ]
    if LIVE.value:
        votes, same = live(run, policy, rows, k, LIVE.value)
        identical = "the same samples, bit for bit, as the stored ones" if same else "NOT the stored samples"
        lines += ["", f"Drawn live at error rate {LIVE.value:g}: {votes.against(fixed[k], k)} ({identical})."]
    output = pathlib.Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    (output / "adaptive.png").write_bytes(draw_figure(points, fixed, k))
    (output / "adaptive.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    cli.run(main, FLAGS)
