"""The last stage of a run: greedy verdicts of every policy, votes of the last one with meta rewards, then the report.

Each pass over the problems is one file of verdicts, written line by line; a restarted run goes on after the last line.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import tqdm

from spct_jax import checkpoints, distributed, files, memory
from spct_jax.config import POLICIES
from spct_jax.data import batches
from spct_jax.data.comparison import Comparison
from spct_jax.data.jsonl import read_jsonl, write_jsonl
from spct_jax.errors import InputError
from spct_jax.judging.models import Model, Models
from spct_jax.judging.options import Options
from spct_jax.judging.scheduler import Scheduler
from spct_jax.judging.verdicts import Verdict
from spct_jax.training import meter
from spct_jax.training.context import Run

PROGRESS_EVERY = 64
"""Problems between two notes of the time spent."""


def run_evaluation(run: Run) -> dict[str, float]:
    """Writes `evaluate/<pass>.jsonl` for every pass and returns the stage's summary."""
    config = run.config.evaluation
    directory = run.workdir / "evaluate"
    directory.mkdir(exist_ok=True)
    split = getattr(run.dataset, config.split)
    comparisons = split[batches.sample(run.config.seed, "evaluate", len(split), config.problems)]
    _keep_problems(directory, comparisons, f"data.{config.split}")
    progress = directory / "progress.json"
    earlier = files.read_json(progress) if progress.exists() else {}
    watch = meter.Stopwatch(earlier)

    for name, policy, k, temperature in passes(run):
        for _ in _run_pass(run, directory / name, comparisons, policy, k, temperature):
            files.write_json(progress, watch.read())
            memory.give_back()
            distributed.PREEMPTION.check()
    timing = watch.read()
    # Of the verdicts that were kept: what a killed run draws again does not count twice.
    tokens = sum(
        sample["tokens"]
        for name, *_ in passes(run)
        for _, record in read_jsonl(directory / f"{name}.jsonl")
        for sample in record["samples"]
    )
    busy = max(timing["seconds"] - timing["compile_seconds"], 1e-9)
    return {**timing, "steps": len(passes(run)), "tokens": tokens, "tokens_per_second": tokens / busy}


def passes(run: Run) -> list[tuple[str, str, int, float]]:
    """(name, policy, k, temperature) of every pass over the problems."""
    config, policies = run.config.evaluation, [s for s in POLICIES if s in run.config.stages]
    found = [(f"{p}_greedy", p, 1, 0.0) for p in policies]
    if policies and max(config.k) > 1:
        found.append((f"{policies[-1]}_sampled", policies[-1], max(config.k), config.temperature))
        found += [(f"{policies[-1]}_sampled_T{t}", policies[-1], max(config.k), t) for t in config.compare_temperatures]
    return found


def options_of(run: Run, k: int, temperature: float, *, guided: bool) -> Options:
    """How the verdicts of a pass are drawn; InputError where the configuration's fields do not go together."""
    config, layout = run.config.evaluation, run.rollout_layout
    # A single draw is not worth programs of its own for shorter prompts.
    largest = (run.limits.max_prompt, run.limits.max_completion)
    options = Options(
        k=k, k_meta=k if guided else 0, temperature=temperature, seed=run.config.seed, order=config.order,
        buckets=(largest,) if k == 1 else (*config.buckets, largest),
    )  # fmt: skip
    rows = config.slots // options.branches // layout.batch_shards * layout.batch_shards
    return dataclasses.replace(options, batch_size=max(rows, layout.batch_shards))


def _problem(c: Comparison) -> dict:
    return {"id": c.id, "query": c.query, "responses": list(c.responses), "scores": list(c.scores), "digest": c.digest}


def _keep_problems(directory: pathlib.Path, comparisons: Sequence[Comparison], field: str) -> None:
    """Writes what is judged; where there are verdicts already, InputError unless they are on the same, in the same order."""
    path = directory / "problems.jsonl"
    begun = path.exists() and any(p.stat().st_size for p in directory.glob("*.jsonl") if p != path)
    if distributed.agree(begun):
        kept = (record for _, record in read_jsonl(path))
        pairs = itertools.zip_longest(kept, map(_problem, comparisons))
        line = next((line for line, (found, wanted) in enumerate(pairs, 1) if found != wanted), None)
        if line is not None:
            raise InputError(
                f"{path}:{line}: verdicts were drawn on another problem than config.{field} holds there now; put that file back"
                f" as it was, or remove {directory} to evaluate anew"
            )
    elif distributed.is_first():
        write_jsonl(path, map(_problem, comparisons))


def _run_pass(
    run: Run, path: pathlib.Path, comparisons: Sequence[Comparison], policy: str, k: int, temperature: float
) -> Iterator[None]:
    """Draws and scores k verdicts of every comparison; yields now and then."""
    target, partial = path.with_name(path.name + ".jsonl"), path.with_name(path.name + ".partial.jsonl")
    if distributed.agree(target.exists()):
        return
    config = run.config.evaluation

    def model(stage: str) -> Model:
        return Model(run.to_draw_with(run.params_of(stage, checkpoints.COMPUTE)), run.model, run.prompter)

    meta = model("meta_rm") if k > 1 and "meta_rm" in run.config.stages else None
    models = Models(run.rollout_layout, model(policy), meta)
    with files.Appended(partial) as file:
        left = comparisons[file.lines :]
        outcomes = Scheduler(models, options_of(run, k, temperature, guided=meta is not None)).run(left)
        bar = tqdm.tqdm(
            outcomes, path.name, len(comparisons), initial=file.lines, unit="problem", disable=not distributed.is_first()
        )
        for number, (comparison, verdict) in enumerate(zip(left, bar, strict=True)):
            if isinstance(verdict, InputError):
                raise InputError(f"evaluate: {comparison.id!r}: {verdict}")
            file.write(_record(comparison, verdict, file.lines + number < config.texts))
            if number % PROGRESS_EVERY == 0 or number == len(left) - 1:
                yield
    if distributed.is_first():
        partial.replace(target)
    distributed.barrier(path.name)


def _record(comparison: Comparison, verdict: Verdict, keep_text: bool) -> dict:
    samples = [dataclasses.asdict(sample) for sample in verdict.samples]
    if not keep_text:
        samples = [sample | {"text": None} for sample in samples]
    return {
        "id": comparison.id,
        "n": comparison.n,
        "best": comparison.best,
        "single": comparison.n == 1,
        "samples": samples,
    }
