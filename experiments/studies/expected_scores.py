"""Expected scores against the paper's vote, on the samples of one run: accuracy, ties, calibration and time.

Every held-out problem of a finished run is judged once with `read="expected"`, which leaves the integers of each critique in
the verdict, so both votes are counted over the very same critiques; some are judged without it, too, for the time it takes.

    python experiments/studies/expected_scores.py --run=runs/tiny --output=docs/results

Writes expected_scores.md.

Calibration is that of a vote's margin, the difference between the two highest totals, divided by k. It is made a probability of
being right by a logistic curve that is fitted on every second problem and applied to the others, and the other way round. The
Brier score and the error of calibration (ten bins of as many problems each) are those of these probabilities; the area under
the ROC curve, at which right and wrong votes are told apart by the margin, needs no curve.
"""

import pathlib
import time

import numpy as np
from absl import flags

from spct_jax import cli, sharding
from spct_jax.data.comparison import from_json
from spct_jax.evaluation import bootstrap, metrics
from spct_jax.judging.judge import Judge
from spct_jax.judging.options import Options
from spct_jax.judging.verdicts import sample_to_json
from spct_jax.reporting import markdown, run_files
from spct_jax.sharding.config import MeshConfig

FLAGS = flags.FlagValues()
RUN = flags.DEFINE_string("run", None, "Workdir of a finished run.", required=True, flag_values=FLAGS)
PROBLEMS = flags.DEFINE_integer("problems", 0, "How many problems, the first; 0: all.", flag_values=FLAGS)
TEMPERATURES = flags.DEFINE_list("temperatures", [], "Temperatures to draw at; none: the run's own.", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "Directory for the page.", required=True, flag_values=FLAGS)
SLOTS = 256
TIMED = 48
"""Problems that are judged for the time."""
READS = {"integers": "scores", "expected": "expected"}


def draw(run: run_files.RunFiles, judge: Judge, count: int | None, **options) -> tuple[list[dict], float]:
    """Rows of the first `count` problems, as `metrics` takes them, and the seconds it took."""
    settings, data = run.config["evaluation"], run.config["data"]
    problems = [p for p in run.problems.values() if len(p["responses"]) > 1]
    problems = problems[:count]
    comparisons = [from_json(p, f"{RUN.value}: {p['id']}", p["id"]) for p in problems]
    buckets = (*(tuple(b) for b in settings["buckets"]), (data["max_prompt"], data["max_completion"]))
    common = {"seed": run.config["seed"], "order": settings["order"], "buckets": buckets}
    common["batch_size"] = SLOTS // Options(k=options["k"]).branches
    start = time.perf_counter()
    verdicts = judge.score(comparisons, **common | options)
    seconds = time.perf_counter() - start
    return [
        {"id": c.id, "n": c.n, "best": c.best, "samples": [sample_to_json(s) | {"expected": s.expected} for s in v.samples]}
        for c, v in zip(comparisons, verdicts, strict=True)
    ], seconds


def margins(rows: list[dict], k: int, k_meta: int | None, read: str) -> np.ndarray:
    """Float64[P], between the two highest totals, a sample; 0 without a valid one."""
    found = []
    for row in rows:
        totals = metrics.vote(row, k, k_meta, read)
        top, second = (0, 0) if totals is None else sorted(totals, reverse=True)[:2]
        found.append((top - second) / k)
    return np.array(found, float)


def calibrated(margin: np.ndarray, credit: np.ndarray) -> np.ndarray:
    """Float64[P], the chance of being right by a logistic curve of the margin that was fitted on the other half."""
    found = np.empty_like(margin)
    for half in (0, 1):
        x = np.stack([np.ones_like(margin), margin], axis=1)
        fit, rest, w = x[half::2], x[1 - half :: 2], np.zeros(2)
        for _ in range(50):  # Newton's method; the ridge keeps it finite where a half is all right
            p = 1 / (1 + np.exp(-fit @ w))
            hessian = (fit * (p * (1 - p))[:, None]).T @ fit + 1e-3 * np.eye(2)
            w = w + np.linalg.solve(hessian, fit.T @ (credit[half::2] - p) - 1e-3 * w)
        found[1 - half :: 2] = 1 / (1 + np.exp(-rest @ w))
    return found


def calibration(margin: np.ndarray, credit: np.ndarray) -> tuple[float, float, float]:
    """(area under the ROC curve, NaN where no problem is wrong or none is right; Brier score; error of calibration)."""
    above = np.heaviside(margin[:, None] - margin, 0.5)
    pairs = credit.sum() * (1 - credit).sum()
    area = credit @ above @ (1 - credit) / pairs if pairs else float("nan")
    p = calibrated(margin, credit)
    bins = np.array_split(np.argsort(p, kind="stable"), 10)
    error = sum(len(b) * abs(p[b].mean() - credit[b].mean()) for b in bins) / len(p)
    return float(area), float(np.square(p - credit).mean()), float(error)


def table(rows: list[dict], ways: list[tuple[str, int, int | None]]) -> list[str]:
    """Both votes at each k, and their difference."""
    lines = [
        "| vote | read | accuracy | ties | difference | ROC area | Brier | calibration error |",
        "| --- | --- | --: | --: | --: | --: | --: | --: |",
    ]
    for name, k, k_meta in ways:
        tallies = {read: metrics.tally(rows, k, k_meta, field) for read, field in READS.items()}
        gap = bootstrap.paired(tallies["expected"].credit, tallies["integers"].credit)
        for read, field in READS.items():
            one = tallies[read]
            difference = markdown.percent(gap.mean, (gap.low, gap.high), signed=True) if read == "expected" else ""
            area, brier, error = calibration(margins(rows, k, k_meta, field), one.credit)
            lines.append(
                f"| {name} | {read} | {100 * one.accuracy:.2f} | {one.tie_rate:.2%} | {difference} "
                f"| {'–' if np.isnan(area) else f'{area:.3f}'} | {brier:.4f} | {error:.4f} |"
            )
    return lines


def main(_) -> None:
    """Judges, and writes the page."""
    run = run_files.read_run_files(RUN.value)
    policy = next(p for p, s in run.samples.items() if "sampled" in s and "@" not in p)
    sharding.use_devices(MeshConfig(run.config["mesh"]["cpu_devices"]))
    workdir = pathlib.Path(RUN.value)
    model = Judge.load(workdir / policy, workdir / "meta_rm")
    k, temperature = max(run.config["evaluation"]["k"]), run.config["evaluation"]["temperature"]
    lines = ["# Expected scores", "", "Made by `experiments/studies/expected_scores.py`, which says what it does.", ""]
    all_of_them = PROBLEMS.value or None
    greedy, _ = draw(run, model, all_of_them, k=1, temperature=0.0, read="expected")
    found = {}
    for t in map(float, TEMPERATURES.value or [temperature]):
        rows, _ = draw(run, model, all_of_them, k=k, temperature=t, read="expected", k_meta=k)
        times = [draw(run, model, TIMED, k=k, temperature=t, read=read)[1] for read in ("expected", "sampled", "expected")]
        found[t] = rows, times[2], times[1]  # the first one may compile
    lines += [
        f"{len(greedy)} problems of the {run.config['evaluation']['split']} split with several responses, seed "
        f"{run.config['seed']}, policy {policy}. Accuracy in percent, a tie counted by its chance; differences in points, "
        "paired over problems, with 95 % bootstrap intervals.",
        "",
        "Greedy, a single critique:",
        "",
        *table(greedy, [("greedy", 1, None)]),
    ]
    for t, (rows, expected, usual) in found.items():
        spread = np.concatenate(
            [np.abs(np.subtract(s["expected"], s["scores"])) for r in rows for s in r["samples"] if s["scores"] is not None]
        )
        lines += [
            "",
            f"Drawn at temperature {t:g}. An expected score is {spread.mean():.3f} from the integer that was drawn on average, "
            f"and more than 0.5 from it for {(spread > 0.5).mean():.2%} of all scores. {k} critiques of {TIMED} problems took "
            f"{usual:.1f} s, with expected scores {expected:.1f} s ({100 * (expected / usual - 1):+.0f} %).",
            "",
            *table(rows, [(f"vote@{m}", m, None) for m in (1, 8, 32) if m <= k]),
            *table(rows, [(f"meta@{m}", m, metrics.guided_votes(m)) for m in (8, 32) if m <= k])[2:],
        ]
    output = pathlib.Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    (output / "expected_scores.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    cli.run(main, FLAGS)
