"""What every way of judging earned on the held-out comparisons of an experiment: systems, votes, read-outs and plain baselines.

An experiment is a directory with `data/`, the runs of `spct_jax.train` in directories beside it, one for each system, and
`after/`, what was read with the trained weights when the runs were done. Whatever is not there is not measured.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import adaptive_frontier
import human_demonstrator
import numpy as np
import text_baselines
from human_weights import Weights

from spct_jax.config import BASELINES
from spct_jax.data.comparison import Comparison, of_object
from spct_jax.data.jsonl import read_jsonl
from spct_jax.data.sources import read_comparisons
from spct_jax.errors import InputError
from spct_jax.evaluation import metrics
from spct_jax.grm import voting
from spct_jax.reporting import results, run_files
from spct_jax.reporting.run_files import RunFiles

GRM = "grm"
"""The system that is SPCT itself."""
SYSTEMS = {GRM: "GRM", "llm_judge": "LLM judge", "btrm": "Bradley-Terry", "pairrm": "PairRM", "cloud": "CLoud"}
UNDRAWN = ("btrm", "pairrm")
"""Systems that score without drawing anything."""
ERROR_RATES = (0.02, 0.1)
"""Of adaptive votes."""
FEWEST = {"train": 40, "development": 20}
"""Comparisons of a source from which length and words are fitted on it alone; with fewer, on all sources."""
DEMONSTRATED = (1, 8, 32)
"""Votes of the demonstrator."""
DATA = ("train", "development", "test")


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of judging.

    Attributes:
      name: for people.
      credit: Float64[P], what it earned on each problem; NaN where it was not asked.
      tied: Bool[P], whether several responses shared the top.
      system: the directory of its run, or "" where there is none.
      note: what else is to be said.
    """

    name: str
    credit: np.ndarray
    tied: np.ndarray
    system: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All that is read.

    Attributes:
      runs: by system.
      data: comparisons by split.
      problems: those of the test that were judged.
      sources: the source of each problem.
      ways: by key, such as "grm rl vote@32", "btrm btrm greedy" and "length".
      unmeasured: systems without an evaluation.
    """

    runs: dict[str, RunFiles]
    data: dict[str, list[Comparison]]
    problems: list[Comparison]
    sources: np.ndarray
    ways: dict[str, Way]
    unmeasured: list[str]

    def masks(self) -> dict[str, np.ndarray]:
        """Bool[P] of all problems and of those of each source, the largest first."""
        names, counts = np.unique(self.sources, return_counts=True)
        ordered = names[np.argsort(-counts, kind="stable")]
        return {"all": np.ones(len(self.problems), bool), **{str(name): self.sources == name for name in ordered}}


def source_of(id: str) -> str:
    """What stands before the first slash."""
    return id.partition("/")[0]


def read(directory: pathlib.Path) -> Experiment:
    """Reads an experiment.

    Raises:
      InputError: there is no run with an evaluation, a file is malformed, or runs were evaluated on different comparisons of
        one id.
    """
    found = {path.parent.name: path.parent for path in sorted(directory.glob("*/config.json"))}
    ordered = [name for name in SYSTEMS if name in found] + [name for name in found if name not in SYSTEMS]
    every = {name: _read_run(found[name]) for name in ordered}
    runs = {name: run for name, run in every.items() if run.problems}
    if not runs:
        raise InputError(f"{directory}: no run below it has been evaluated")
    paths = {name: directory / "data" / f"{name}.jsonl" for name in DATA}
    data = {name: read_comparisons(path, need_best=True)[0] if path.exists() else [] for name, path in paths.items()}
    known: dict[str, dict] = {}
    for name, run in runs.items():
        for id, problem in run.problems.items():
            if known.setdefault(id, problem) != problem:
                raise InputError(
                    f"{found[name]}/evaluate/problems.jsonl: {id!r} is another comparison there than in other runs"
                )
    problems = [_comparison(problem) for problem in known.values() if len(problem["responses"]) > 1]
    sources = np.array([source_of(c.id) for c in problems])
    ways = {"chance": Way("chance", np.array([1 / c.n for c in problems]), np.zeros(len(problems), bool))}
    ways |= text_ways(data, problems)
    ways |= _likelihood_ways(directory / "after" / "likelihood.jsonl", problems)
    for system, run in runs.items():
        ways |= _run_ways(system, run, problems)
        for kind in ("greedy", "sampled") if system == GRM else ():
            ways |= _expected_ways(directory / "after" / f"expected_{kind}.jsonl", kind, problems)
    return Experiment(runs, data, problems, sources, ways, [name for name in every if name not in runs])


def _read_run(directory: pathlib.Path) -> RunFiles:
    """What a run left, with the verdicts of a pass that was cut short."""
    run = run_files.read_run_files(directory)
    for path in sorted((directory / "evaluate").glob("*_*.partial.jsonl")):
        label, _, kind = path.name.removesuffix(".partial.jsonl").rpartition("_")
        rows = [row for _, row in read_jsonl(path, growing=True)]
        if kind in ("greedy", "sampled") and rows:
            run.samples.setdefault(label, {})[kind] = rows
    return run


def _comparison(problem: Mapping) -> Comparison:
    return of_object({name: problem[name] for name in ("id", "query", "responses", "scores")}, problem["id"])


def _way(name: str, totals: Mapping[str, Sequence[float] | None], problems: Sequence[Comparison], **more: str) -> Way:
    """Of each id's totals; problems without an entry were not asked."""
    credit = [voting.expected_credit(totals[c.id], c.best, c.n) if c.id in totals else np.nan for c in problems]
    tied = [c.id in totals and voting.is_tie(totals[c.id]) for c in problems]
    return Way(name, np.array(credit, float), np.array(tied, bool), **more)


def labels_of(run: RunFiles) -> list[str]:
    """Those whose verdicts count: of a baseline only its own stage's, since a cold start that it builds on is no judge."""
    baselines = [label for label in run.samples if label in BASELINES]
    return baselines or list(run.samples)


def judge_name(system: str, label: str) -> str:
    """The name of a system's model, for people."""
    title = SYSTEMS.get(system, system)
    return title if label in BASELINES else f"{title}, {results.label_name(label)}"


def _run_ways(system: str, run: RunFiles, problems: Sequence[Comparison]) -> dict[str, Way]:
    """Greedy verdicts of every stage, votes of the configured sizes, and adaptive ones."""
    ways = {}
    place = {c.id: index for index, c in enumerate(problems)}
    asked = run.config.get("evaluation", {}).get("k", ())
    tallies = results.tallies(run)
    for label in labels_of(run):
        judge = judge_name(system, label)
        for measure, tally in tallies[label].items():
            kind = "greedy" if measure == "greedy" else "sampled"
            if kind == "sampled" and metrics.votes(measure) not in asked:
                continue
            at = [place[row["id"]] for row in run.rows(label, kind)]
            name = judge if label in UNDRAWN else f"{judge} {measure}"
            ways[f"{system} {label} {measure}"] = _scattered(name, at, tally, len(problems), system)
        rows = run.rows(label, "sampled")
        if _are_points(rows):
            at, k = [place[row["id"]] for row in rows], min(len(row["samples"]) for row in rows)
            for rate in ERROR_RATES:
                votes = adaptive_frontier.vote(rows, [adaptive_frontier.stops(row, k, rate) for row in rows])
                tally = metrics.Tally(votes.credit, np.array([len(named) > 1 for named in votes.named]))
                note, name = f"{votes.used.mean():.1f} of {k} samples", f"{judge} adaptive at {rate:g}"
                ways[f"{system} {label} adaptive@{rate:g}"] = _scattered(name, at, tally, len(problems), system, note)
    return ways


def _are_points(rows: Sequence[Mapping]) -> bool:
    """Whether verdicts give whole points, as adaptive votes assume: a choice is 0 or 1, a scalar model's score is real."""
    scores = [score for row in rows for sample in row["samples"] for score in sample["scores"] or ()]
    return bool(scores) and max(scores) > 1 and all(isinstance(score, int) for score in scores)


def _scattered(name: str, at: Sequence[int], tally: metrics.Tally, size: int, system: str, note: str = "") -> Way:
    credit, tied = np.full(size, np.nan), np.zeros(size, bool)
    credit[at], tied[at] = tally.credit, tally.tied
    return Way(name, credit, tied, system, note)


def _expected_ways(path: pathlib.Path, kind: str, problems: Sequence[Comparison]) -> dict[str, Way]:
    """Of verdicts that the judge command drew with `--read=expected`: both votes over the very same critiques."""
    if not path.exists():
        return {}
    by_id = {c.id: c for c in problems}
    verdicts = [row for _, row in read_jsonl(path) if row.get("id") in by_id and "samples" in row]
    rows = [{"id": row["id"], "n": by_id[row["id"]].n, "samples": row["samples"]} for row in verdicts]
    if not rows:
        raise InputError(f"{path}: no verdict on a comparison that the runs judged")
    k, ways = len(rows[0]["samples"]), {}
    for read_as, field in {"expected": "expected", "integers of the same draws": "scores"}.items():
        measure = "greedy" if kind == "greedy" else f"vote@{k}"
        totals = {row["id"]: metrics.vote(row, k, read=field) for row in rows}
        ways[f"{GRM} {measure} {field}"] = _way(f"GRM, RL {measure}, {read_as}", totals, problems, system=GRM)
    return ways


def _likelihood_ways(path: pathlib.Path, problems: Sequence[Comparison]) -> dict[str, Way]:
    if not path.exists():
        return {}
    found = text_baselines.read_likelihoods(path)
    return {
        f"likelihood {how}": _way(f"likelihood under the base model, {how}", totals, problems) for how, totals in found.items()
    }


def text_ways(data: Mapping[str, Sequence[Comparison]], problems: Sequence[Comparison]) -> dict[str, Way]:
    """What needs no model: lengths and words, each source by what was fitted on it where that is enough, and the criteria."""
    """Length and words, each source by what was fitted on it where that is enough, and words fitted on all sources."""
    if not data["train"] or not data["development"]:
        return {}
    lengths, words, notes = {}, {}, {"length": [], "words": []}
    every = text_baselines.Length.fit(data["train"]), text_baselines.BagOfWords.fit(data["train"], data["development"])
    for source in dict.fromkeys(source_of(c.id) for c in problems):
        shown = [c for c in problems if source_of(c.id) == source]
        train, development = ([c for c in data[name] if source_of(c.id) == source] for name in ("train", "development"))
        length, bag = every
        if len(train) >= FEWEST["train"] and len(development) >= FEWEST["development"]:
            length, bag = text_baselines.Length.fit(train), text_baselines.BagOfWords.fit(train, development)
        for totals, model, name in ((lengths, length, "length"), (words, bag, "words")):
            totals |= {c.id: t for c, t in zip(shown, model.totals(shown), strict=True)}
            notes[name].append(f"{source}: {model}")
    of_all = {c.id: t for c, t in zip(problems, every[1].totals(problems), strict=True)}
    return {
        "length": _way("length", lengths, problems, note="; ".join(notes["length"])),
        "words": _way("bag of words, by source", words, problems, note="; ".join(notes["words"])),
        "words of all": _way("bag of words, one for all", of_all, problems, note=str(every[1])),
        **_criteria_ways(Weights.fit(data["train"]), problems),
    }


def _criteria_ways(weights: Weights, problems: Sequence[Comparison]) -> dict[str, Way]:
    """All criteria of the cold start's demonstrator, weighted, and what the demonstrator's own verdicts would earn in votes."""
    ruled = {c.id: t for c, t in zip(problems, weights.totals(problems), strict=True)}
    ways = {"criteria": _way("all criteria, weighted", ruled, problems)}
    drawn = {c.id: human_demonstrator.draws(c, weights, max(DEMONSTRATED), 0) for c in problems}
    for k in DEMONSTRATED:
        totals = {c.id: voting.sum_vote(drawn[c.id][:k], c.n) for c in problems}
        ways[f"demonstrator {k}"] = _way(f"demonstrator, vote@{k}", totals, problems)
    return ways
