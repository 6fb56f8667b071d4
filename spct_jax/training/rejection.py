"""Rejection sampling (paper section 3.1): which of the policy's own verdicts the next fine-tuning learns from.

For every comparison the policy writes N_RFT completions, and one more for a prompt that names the best response (the hinted
one). A completion is kept when it is correct (Eq. 10). A comparison whose unhinted completions are all correct is too easy:
these are dropped. A hinted completion is dropped only when it is wrong. What was written with the hint becomes a target for the
prompt without it, so all kept completions of a comparison share one prompt.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from spct_jax.data import draws
from spct_jax.data.batches import Example
from spct_jax.errors import InputError
from spct_jax.grm import rewards
from spct_jax.grm.prompts import Rollout
from spct_jax.sampling import Shape, Usage
from spct_jax.storage.paths import Path
from spct_jax.training import packing, rollout
from spct_jax.training.context import Run


def correct(rollout: Rollout) -> list[bool]:
    """Eq. 10 for each completion of a rollout."""
    return [rewards.is_correct(s, rollout.truth) for s in rollout.scores]


def retain(unhinted: list[bool], hinted: list[bool], *, drop_too_easy: bool) -> tuple[list[int], list[int]]:
    """Indices of the kept unhinted and of the kept hinted completions of one comparison, given which of them are correct."""
    too_easy = drop_too_easy and all(unhinted)
    return [i for i, right in enumerate(unhinted) if right and not too_easy], [i for i, right in enumerate(hinted) if right]


@dataclasses.dataclass(frozen=True)
class SampleSet:
    """Completions of all comparisons that rejection sampling works on."""

    stage: str
    """The policy that this stage begins with writes them, and they are in the stage's directory."""
    name: str
    """What the names of their files begin with."""
    key: str
    """Which of the run's random keys they are drawn with."""
    hinted: bool = False
    """Whether the prompt names the best response. If so, each comparison of several responses has one completion; if not,
    every comparison has `rejection.samples`."""
    index: int = 0
    """Sets with different indices show a comparison in different orders."""


UNHINTED = SampleSet("rejection", "unhinted", "rejection")
HINTED = dataclasses.replace(UNHINTED, name="hinted", hinted=True)
FINAL = SampleSet("meta_rm", "draws", "meta_rm_draws", index=1)
"""The completions of the final policy that the meta RM learns from (paper section 4)."""


def run_rejection(run: Run) -> dict[str, float]:
    """Samples completions of the training comparisons from the cold-start policy, and counts what is kept."""
    config = run.config.rejection
    timing = draw(run, UNHINTED, HINTED) if config.hinted else draw(run, UNHINTED)
    counts = {
        "tokens": 0,
        "draws": 0,
        "correct": 0,
        "malformed": 0,
        "truncated": 0,
        "too_easy": 0,
        "kept": 0,
        "kept_hinted": 0,
        "comparisons_kept": 0,
    }
    for _, plain, told in rollouts_by_comparison(run):
        unhinted = correct(plain)
        kept, kept_hinted = retain(unhinted, correct(told) if told else [], drop_too_easy=config.drop_too_easy)
        counts["tokens"] += sum(len(c) for r in (plain, told) if r for c in r.completions)
        counts["draws"] += len(unhinted)
        counts["correct"] += sum(unhinted)
        counts["malformed"] += sum(s is None for s in plain.scores)
        counts["truncated"] += sum(plain.truncated)
        counts["too_easy"] += all(unhinted)
        counts["kept"] += len(kept)
        counts["kept_hinted"] += len(kept_hinted)
        counts["comparisons_kept"] += bool(kept or kept_hinted)
    busy = max(timing["seconds"] - timing["compile_seconds"], 1e-9)
    return {**timing, "steps": len([*comparison_batches(run)]), "tokens_per_second": counts["tokens"] / busy, **counts}


def retained_examples(run: Run) -> list[Example]:
    """RFT examples, one for each comparison with completions that are kept; prompts have no hint.

    Raises:
      InputError: none is kept; says why.
    """
    examples, drop_too_easy, too_easy = [], run.config.rejection.drop_too_easy, 0
    drawn = cut = readable = 0
    for number, plain, told in rollouts_by_comparison(run):
        for each in (plain, told) if told else (plain,):
            drawn, cut = drawn + len(each.scores), cut + sum(each.truncated)
            readable += sum(scores is not None for scores in each.scores)
        unhinted = correct(plain)
        kept, kept_hinted = retain(unhinted, correct(told) if told else [], drop_too_easy=drop_too_easy)
        too_easy += drop_too_easy and all(unhinted)
        completions = [plain.completions[i] for i in kept] + [told.completions[i] for i in kept_hinted]
        if completions:
            examples.append(packing.example_of(run, number, plain, completions))
    if examples:
        return examples
    if not readable:
        raise InputError(
            f"rft: rejection sampling kept no draw, since none of {drawn:,} could be read as a verdict ({cut:,} were cut at "
            "config.data.max_completion); train the cold start (config.sft) longer, on demonstrations "
            "(config.data.demonstrations) that end as the templates (config.prompt) ask"
        )
    if not too_easy:
        raise InputError("rft: rejection sampling kept no draw; train the cold start (config.sft) longer")
    raise InputError(
        f"rft: rejection sampling kept no draw: {too_easy:,} comparisons have right ones only, which are too easy "
        "(config.rejection.drop_too_easy), and all others have wrong ones only"
    )


def read(run: Run, samples: SampleSet) -> Iterator[tuple[int, Rollout]]:
    """(number of the comparison, its completions), correct or not, of a finished set."""
    for start, numbers in comparison_batches(run):
        yield from zip(_comparisons_of(run, samples, numbers), rollout.read(_path(run, samples, start)), strict=True)


def solved(run: Run) -> Int[np.ndarray, " N"]:
    """Numbers of the training comparisons whose unhinted completions are all correct, ascending."""
    return np.array(sorted(number for number, plain in read(run, UNHINTED) if all(correct(plain))), np.int64)


def draw(run: Run, *sets: SampleSet) -> dict[str, float]:
    """Draws sets of one stage, one batch of comparisons at a time; returns what `rollout.draw_files` does."""
    config = run.config.rejection

    @functools.cache
    def shape_of(samples: SampleSet) -> Shape:
        traffic = {"slots": config.slots, "prompts": config.batch_size, "samples": _samples_of(run, samples)}
        return rollout.shape_of(run, samples.stage, **traffic)

    def draw_one(samples: SampleSet, numbers: list[int], params: Any, usage: Usage) -> list[Rollout]:
        chosen = _comparisons_of(run, samples, numbers)
        if not chosen:
            return []
        drawn, _ = rollout.draw(
            run,
            params,
            chosen,
            run.key(samples.key, int(samples.hinted)),
            shape=shape_of(samples),
            samples=_samples_of(run, samples),
            temperature=config.temperature,
            index=samples.index,
            hinted=samples.hinted,
            usage=usage,
        )
        return drawn

    batches = [
        {_path(run, samples, start): functools.partial(draw_one, samples, numbers) for samples in sets}
        for start, numbers in comparison_batches(run)
    ]
    return rollout.draw_files(run, sets[0].stage, batches)


def comparison_batches(run: Run) -> Iterator[tuple[int, list[int]]]:
    """(how many come before, numbers) of the comparisons whose completions are drawn together."""
    config, train = run.config.rejection, run.dataset.train
    chosen = draws.sample(run.config.seed, "rejection", len(train), config.problems, train.shares).tolist()
    for start in range(0, len(chosen), config.batch_size):
        yield start, chosen[start : start + config.batch_size]


def rollouts_by_comparison(run: Run) -> Iterator[tuple[int, Rollout, Rollout | None]]:
    """(number of a comparison, its unhinted rollout, its hinted one); a single response has nothing to hint at."""
    told = read(run, HINTED) if run.config.rejection.hinted else iter(())
    for number, plain in read(run, UNHINTED):
        # Matched by position, since the number of one line may be the id of another.
        yield number, plain, next(told, (number, None))[1] if run.dataset.responses[number] > 1 else None


def _samples_of(run: Run, samples: SampleSet) -> int:
    """Completions that a comparison has in a set."""
    return 1 if samples.hinted else run.config.rejection.samples


def _comparisons_of(run: Run, samples: SampleSet, numbers: list[int]) -> list[int]:
    """Which of these comparisons have completions in a set."""
    return [number for number in numbers if not samples.hinted or run.dataset.responses[number] > 1]


def _path(run: Run, samples: SampleSet, start: int) -> Path:
    return run.workdir / samples.stage / f"{samples.name}-{start:06d}.jsonl"
