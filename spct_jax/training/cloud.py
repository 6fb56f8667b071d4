"""CLoud (a baseline of the paper): a second model with a scalar head learns to score a response by the critic's critique of it.

The policy before this stage is the critic. It writes critiques of every response of some training comparisons, each by itself;
then a model that starts from the same parameters learns from pairs, as Bradley-Terry does, with the critique in its context.
Nothing filters critiques by what they say: of a single response there is no telling which are right. One that was cut has no
end to be scored at, and the draw that it is of does not count, as when the model judges.

All that is read of a comparison is one group: the prompt is what the prompts of its responses have in common, conversation
included, and each completion is the rest of one of them and a critique.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from spct_jax.data import draws
from spct_jax.data.batches import Groups, TokenGroup
from spct_jax.data.comparison import Comparison
from spct_jax.data.index import Records
from spct_jax.errors import InputError
from spct_jax.grm.prompts import Rollout
from spct_jax.models import Trunk, flops
from spct_jax.models.config import ModelConfig
from spct_jax.reward_models import cloud
from spct_jax.reward_models.scalar import scalar_rewards
from spct_jax.sampling import Usage
from spct_jax.storage.paths import Path
from spct_jax.training import btrm, preambles, preference, rollout
from spct_jax.training.context import Run


def rewards(
    params: Any, config: ModelConfig, groups: Groups, preamble: Trunk | None = None, *, samples: int = 1
) -> Float[Array, "B n"]:
    """The mean reward over the critiques of each of n responses, 0 of one that has none.

    Of the G = n * `samples` completions, each run of `samples` are the critiques of one response.
    """
    present = groups.lengths > 0
    each = jnp.where(present, scalar_rewards(params, config, groups, preamble), 0)
    each, present = (x.reshape(len(x), -1, samples) for x in (each, present))
    return each.sum(-1) / jnp.maximum(present.sum(-1), 1)


def stem_of(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens the prompts of a comparison's responses have in common, each without its last."""
    return len(os.path.commonprefix([list(prompt[:-1]) for prompt in prompts]))


def group_of(prompts: Sequence[Sequence[int]], critiques: Sequence[Sequence[Iterable[Any] | None]]) -> TokenGroup:
    """(what the prompts of some responses have in common, the rest of each with each of its critiques; nothing for None)."""
    stem = stem_of(prompts)
    pairs = [(prompt[stem:], critique) for prompt, drawn in zip(prompts, critiques, strict=True) for critique in drawn]
    return prompts[0][:stem], [[] if critique is None else [*rest, *map(int, critique)] for rest, critique in pairs]


def whole(singles: Sequence[Rollout]) -> list[list[Any]] | None:
    """Of each response of a comparison, the critiques that it is scored by, None in place of others; None if there are none."""
    counts = cloud.counted([r.truncated for r in singles])
    kept = [[critique if counts[i] else None for i, critique in enumerate(r.completions)] for r in singles]
    return kept if any(counts) else None


def run_cloud(run: Run) -> dict[str, Any]:
    """Draws critiques and trains the model that scores responses by them."""
    config = run.config.cloud
    several = preference.compared(run, "cloud")
    chosen = several[draws.sample(run.config.seed, "cloud", len(several), config.problems, run.dataset.train[several].shares)]
    drawing = draw(run, chosen)
    every = dict(zip(chosen.tolist(), read(run, chosen), strict=True))
    critiques = {number: kept for number, singles in every.items() if (kept := whole(singles)) is not None}
    if not critiques:
        raise InputError(
            f"cloud: of {len(every):,} comparisons, none has a draw whose critiques all end within config.data.max_completion="
            f"{run.config.data.max_completion}; train the critic (config.sft) longer"
        )
    numbers = chosen[[number in critiques for number in chosen.tolist()]]

    def make(number: int, comparison: Comparison, step: int):
        return lambda: group_of(prompts(comparison), critiques[number]), btrm.labels(comparison)

    def prompts(comparison: Comparison) -> list[list[int]]:
        return [run.prompter.encode(single, (0,)) for single in cloud.responses_apart(comparison)]

    def lengths(comparison: Comparison) -> tuple[int, int]:
        made = prompts(comparison)
        stem = stem_of(made)
        return stem, max(map(len, made)) - stem

    longest_stem, longest_rest = preference.longest(run, "cloud", lengths)
    longest_critique = max(len(c) for kept in critiques.values() for drawn in kept for c in drawn if c is not None)
    shape = preference.GroupShape(
        max_prompt=longest_stem,
        max_completion=longest_rest + preference.round_up(longest_critique),
        group_size=int(run.dataset.responses.max()) * config.samples,
        samples=config.samples,
        preamble=preambles.of(run, run.prompter.single),
    )
    objective = preference.Objective(btrm.margins, functools.partial(rewards, samples=config.samples))
    left_out = {"a critique cut in every draw": len(chosen) - len(numbers)}
    summary = preference.train(run, "cloud", config, numbers, shape, objective, make, left_out)
    rollouts = [r for singles in every.values() for r in singles]
    counts = {"critiques": sum(len(r.completions) for r in rollouts), "truncated": sum(sum(r.truncated) for r in rollouts)}
    tokens, trunk = sum(len(tokens) for r in rollouts for tokens in r.completions), run.limits.max_prompt - 1
    drawn = flops.prefill(run.model, len(rollouts), trunk) + tokens * flops.decode(run.model, 1, trunk)
    spent = {"drawing_seconds": drawing["seconds"], "useful_slots": drawing["useful_slots"], "flops": summary["flops"] + drawn}
    return summary | counts | spent


def draw(run: Run, numbers: Int[np.ndarray, " N"]) -> dict[str, float]:
    """Draws critiques of every response of these comparisons; returns what `rollout.draw_files` does."""
    config = run.config.cloud
    traffic = {"slots": config.slots, "prompts": config.draw_batch_size, "samples": config.samples}
    shape = functools.cache(lambda: rollout.shape_of(run, "cloud", **traffic))

    def draw_one(start: int, params: Any, usage: Usage) -> list[Rollout]:
        singles = _singles(run, numbers[start : start + config.draw_batch_size])
        apart = dataclasses.replace(run, dataset=dataclasses.replace(run.dataset, train=singles))
        drawn, _ = rollout.draw(
            apart,
            params,
            range(len(singles)),
            run.key("cloud_draws"),
            shape=shape(),
            samples=config.samples,
            temperature=config.temperature,
            usage=usage,
        )
        return drawn

    batches = [{_path(run, start): functools.partial(draw_one, start)} for start in _starts(run, numbers)]
    return rollout.draw_files(run, "cloud", batches)


def read(run: Run, numbers: Int[np.ndarray, " N"]) -> Iterator[list[Rollout]]:
    """The critiques of each comparison: one rollout per response."""
    for start in _starts(run, numbers):
        drawn = iter(rollout.read(_path(run, start)))
        for number in numbers[start : start + run.config.cloud.draw_batch_size]:
            yield [next(drawn) for _ in range(int(run.dataset.responses[number]))]


def _singles(run: Run, numbers: Int[np.ndarray, " N"]) -> Records[Comparison]:
    """Every response of these comparisons by itself."""
    places = [(int(number), i) for number in numbers for i in range(int(run.dataset.responses[number]))]
    return Records(lambda at: cloud.responses_apart(run.dataset.train[places[at][0]])[places[at][1]], range(len(places)))


def _starts(run: Run, numbers: Int[np.ndarray, " N"]) -> range:
    return range(0, len(numbers), run.config.cloud.draw_batch_size)


def _path(run: Run, start: int) -> Path:
    return run.workdir / "cloud" / f"critiques-{start:06d}.jsonl"
