"""The last stage of a run: greedy verdicts of every policy, votes of the last one with meta rewards, then the report.

Each pass over the problems is one file of verdicts, written line by line; a restarted run goes on after the last line.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tqdm

from spct_jax import checkpoints
from spct_jax.config import BASELINES, POLICIES
from spct_jax.data.comparison import Comparison
from spct_jax.data.jsonl import read_jsonl
from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import held_out
from spct_jax.judging.models import Model, Models
from spct_jax.judging.options import Options
from spct_jax.judging.scheduler import Scheduler
from spct_jax.judging.verdicts import Verdict, of_scores, sample_to_json
from spct_jax.reward_models.bradley_terry import BradleyTerry
from spct_jax.reward_models.cloud import Cloud, CloudOptions, Critic
from spct_jax.reward_models.pairrm import PairRM
from spct_jax.reward_models.scalar import ScalarModel
from spct_jax.runtime import distributed, memory
from spct_jax.sampling import Usage, engine_size
from spct_jax.storage import append_only, files
from spct_jax.storage.paths import Path
from spct_jax.training import parameters, performance
from spct_jax.training.context import Run

PROGRESS_EVERY = 64
"""Problems between two notes of the time spent."""
SCORED_TOGETHER = 256
"""Problems that a scalar reward model scores before any of them is written."""


def run_evaluation(run: Run) -> dict[str, float]:
    """Writes `evaluate/<pass>.jsonl` for every pass and returns the stage's summary."""
    config, directory = run.config.evaluation, run.workdir / "evaluate"
    files.make_directory(directory)
    comparisons = held_out.choose(run)
    held_out.keep(directory, comparisons, f"data.{config.split}")
    progress = directory / "progress.json"
    earlier = files.read_json(progress) if progress.exists() else {}
    watch, usage = performance.Stopwatch(earlier), Usage(**earlier.get("usage", {}))
    chosen_for = 0 if config.slots else _memory(run, earlier.get("memory", 0))

    def note() -> None:
        files.write_json(progress, watch.read() | {"usage": vars(usage), "memory": chosen_for})

    note()
    for one in passes(run):
        for _ in _run_pass(run, directory, comparisons, one, usage, chosen_for):
            note()
            memory.give_back()
            distributed.PREEMPTION.check()
    timing = watch.read()
    # Of the verdicts that were kept: what a killed run draws again does not count twice.
    tokens = sum(
        sample["tokens"]
        for one in passes(run)
        for _, record in read_jsonl(directory / f"{one.name}.jsonl")
        for sample in record["samples"]
    )
    busy = max(timing["seconds"] - timing["compile_seconds"], 1e-9)
    steps, speed = len(passes(run)), tokens / busy
    return {**timing, "steps": steps, "tokens": tokens, "tokens_per_second": speed, "padding": usage.padding}


def check(run: Run) -> None:
    """Raises InputError naming the field where there is nothing to judge, or settings do not go together."""
    held_out.check(run)
    for one in passes(run):
        if one.stage in BASELINES:
            continue
        try:
            options_for(run, one)
        except InputError as error:
            raise InputError(f"config.evaluation: {error} ({one.name})") from None


class Pass(NamedTuple):
    """One pass over the problems."""

    name: str
    """Of its file of verdicts."""
    stage: str
    """That trained the judge."""
    k: int
    """Samples per problem."""
    temperature: float
    guided: bool
    """Whether the meta RM rates the samples."""
    mode: str = "scores"
    """As in `Options`."""


def passes(run: Run) -> list[Pass]:
    """Every pass over the problems: greedy ones of each policy and baseline, sampled ones of the last policy.

    A cold start that only a baseline builds on is not sampled.
    """
    config, stages = run.config.evaluation, run.config.stages
    policies, baselines = ([s for s in chosen if s in stages] for chosen in (POLICIES, BASELINES))
    found = [Pass(f"{stage}_greedy", stage, 1, 0.0, guided=False) for stage in (*policies, *baselines)]
    if policies and max(config.k) > 1 and not (baselines and policies == ["sft"]):
        last, guided = policies[-1], "meta_rm" in run.config.stages
        found.append(Pass(f"{last}_sampled", last, max(config.k), config.temperature, guided))
        if run.prompter.chooses:  # so that a sample's vote is weighted by TokenProb, too
            found.append(Pass(f"{last}+token_prob_sampled", last, max(config.k), config.temperature, False, "token_prob"))
        found += [Pass(f"{last}_sampled_T{t}", last, max(config.k), t, guided) for t in config.compare_temperatures]
    if "cloud" in baselines and max(config.k) > 1:
        found.append(Pass("cloud_sampled", "cloud", max(config.k), config.temperature, guided=False))
    return found


def _memory(run: Run, begun_with: int) -> int:
    """Bytes of a device that shapes are chosen for; InputError as of `engine_size.memory_for`."""
    there = distributed.from_first(lambda: engine_size.memory_of(run.rollout_layout))
    try:
        return engine_size.memory_for(there, begun_with, "config.evaluation.slots")
    except InputError as error:
        raise InputError(f"evaluate: {error}") from None


def options_for(run: Run, one: Pass, memory: int = 0) -> Options:
    """How the verdicts of a pass are drawn; InputError where the configuration's fields do not go together.

    Where `evaluation.slots` is 0, shapes are chosen for `memory` bytes of a device.
    """
    config, layout = run.config.evaluation, run.rollout_layout
    # A single draw is not worth programs of its own for shorter prompts.
    largest = (run.limits.max_prompt, run.limits.max_completion)
    options = Options(
        k=one.k,
        k_meta=one.k if one.guided else 0,
        temperature=one.temperature,
        seed=run.config.seed,
        mode=one.mode,
        order=config.order,
        buckets=(largest,) if one.k == 1 else (*config.buckets, largest),
    )
    if not config.slots:
        return dataclasses.replace(options, memory=memory)
    rows = config.slots // options.branches // layout.batch_shards * layout.batch_shards
    return dataclasses.replace(options, batch_size=max(rows, layout.batch_shards))


def _run_pass(
    run: Run, directory: Path, comparisons: Sequence[Comparison], one: Pass, usage: Usage, memory: int = 0
) -> Iterator[None]:
    """Draws and writes k verdicts of every comparison; yields now and then."""
    target, partial = directory / f"{one.name}.jsonl", directory / f"{one.name}.partial.jsonl"
    if distributed.agree(target.exists()):
        if distributed.is_first():
            append_only.remove(partial)  # left by a kill in a bucket, where a move copies first
        return

    with append_only.Appended(partial) as file:
        left = comparisons[file.lines :]
        outcomes = _scored(run, one, left, memory) if one.stage in BASELINES else _judged(run, one, left, usage, memory)
        bar = tqdm.tqdm(
            outcomes, one.name, len(comparisons), initial=file.lines, unit="problem", disable=not distributed.is_first()
        )
        for number, (comparison, verdict) in enumerate(zip(left, bar, strict=True)):
            if isinstance(verdict, InputError):
                raise InputError(f"evaluate: {comparison.id!r}: {verdict}")
            file.write(_record(comparison, verdict, file.lines + number < run.config.evaluation.texts))
            if number % PROGRESS_EVERY == 0 or number == len(left) - 1:
                yield
    if distributed.is_first():
        files.move(partial, target)
    distributed.barrier(one.name)


def _model(run: Run, stage: str) -> Model:
    params = parameters.trained_by(run, stage, checkpoints.COMPUTE)
    if parameters.kind_of(stage) != checkpoints.ModelKind.POLICY:
        return Model(parameters.for_scoring(run, params), run.model, run.prompter)
    return Model(parameters.for_sampling(run, params), parameters.sampling_model(run), run.prompter)


def _judged(
    run: Run, one: Pass, comparisons: Sequence[Comparison], usage: Usage, memory: int
) -> Iterator[Verdict | InputError]:
    """What a policy says of each comparison."""
    models = Models(run.rollout_layout, _model(run, one.stage), _model(run, "meta_rm") if one.guided else None)
    return Scheduler(models, options_for(run, one, memory), usage).run(comparisons)


def _scored(run: Run, one: Pass, comparisons: Sequence[Comparison], memory: int) -> Iterator[Verdict]:
    """What a scalar reward model says of each comparison."""
    model = _model(run, one.stage)
    scalar = ScalarModel(run.rollout_layout, model.params, model.config, model.prompter.tokenizer)
    judge: BradleyTerry | PairRM | Cloud
    if one.stage == "cloud":
        policy, options = parameters.for_sampling(run, parameters.policy_before(run, "cloud")), options_for(run, one, memory)
        drawn = CloudOptions(
            options.k, options.temperature, options.seed, run.limits.max_completion, options.batch_size, options.memory
        )
        critic = Critic(run.rollout_layout, policy, parameters.sampling_model(run), run.prompter)
        judge = Cloud(critic, scalar, drawn)
    else:
        judge = {"btrm": BradleyTerry, "pairrm": PairRM}[one.stage](scalar)
    for start in range(0, len(comparisons), SCORED_TOGETHER):
        yield from map(of_scores, judge.score(comparisons[start : start + SCORED_TOGETHER]))


def _record(comparison: Comparison, verdict: Verdict, keep_text: bool) -> dict:
    samples = [sample_to_json(sample) for sample in verdict.samples]
    if not keep_text:
        samples = [sample | {"text": None} for sample in samples]
    return {
        "id": comparison.id,
        "n": comparison.n,
        "best": comparison.best,
        "single": comparison.n == 1,
        "samples": samples,
    }
