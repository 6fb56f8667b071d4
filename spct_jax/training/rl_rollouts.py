"""What the steps of RL draw, and the log of it."""

import dataclasses
import sys
from typing import Any

import numpy as np
from jaxtyping import Float

from spct_jax.errors import InputError
from spct_jax.grm.prompts import Rollout
from spct_jax.runtime import distributed
from spct_jax.sampling import Shape, Usage
from spct_jax.storage import files
from spct_jax.storage.paths import Path
from spct_jax.training import dynamic_sampling, group_rewards, parameters, rollout
from spct_jax.training.context import Run


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What a step of RL has drawn."""

    rollouts: list[Rollout]
    rewards: Float[np.ndarray, "drawn G"]
    """Of every completion."""
    sampler_logprobs: Float[np.ndarray, "drawn G T"]
    old_logprobs: Float[np.ndarray, "B G T"] | None = None
    """Of those that are learned from, under the policy that drew, as updates compute them, where that is not the one that is
    updated."""


def roll_out(run: Run, params: Any, numbers: list[int], step: int, shape: Shape, usage: Usage) -> Drawn:
    """Draws one group per comparison, each shown in an order of its own, until there are enough to learn from; logs them all.

    Args:
      run: the run.
      params: of the policy.
      numbers: of the training comparisons that the step may draw. It begins with `rl.batch_size` of them.
      step: number of the step.
      shape: the engine's.
      usage: a counter to add to.
    """
    config, sampled = run.config.rl, parameters.for_sampling(run, params)
    drawn, logprobs, count = list[Rollout](), [], config.batch_size
    while count:
        rollouts, found = rollout.draw(
            run,
            sampled,
            numbers[len(drawn) : len(drawn) + count],
            run.key("rl", step),
            shape=shape,
            samples=config.group_size,
            temperature=config.temperature,
            index=step,
            usage=usage,
            before=numbers[: len(drawn)],
        )
        drawn, logprobs = drawn + rollouts, [*logprobs, found]
        given = group_rewards.rewards_of(drawn, run.reward)
        count = dynamic_sampling.next_draw(group_rewards.with_signal(given), config.batch_size, len(numbers))
    made, path = Drawn(drawn, given, np.concatenate(logprobs)), path_of(run, step)
    files.make_directory(path.parent)
    if run.config.checkpoint.reuse_rollouts or config.rollout_lag:
        files.write_array(_sampler_path(path), made.sampler_logprobs)
    rollout.write(path, drawn)
    return made


def log_old(run: Run, step: int, logprobs: Float[np.ndarray, "B G T"]) -> None:
    """Adds the `old_logprobs` of a step to its log."""
    files.write_array(_old_path(path_of(run, step)), logprobs)


def read_log(run: Run, step: int) -> Drawn | None:
    """What was drawn for a step before the run was interrupted, bit for bit; None if it is not there, or not whole."""
    path, lag = path_of(run, step), run.config.rl.rollout_lag
    needed = [path, _sampler_path(path), *[_old_path(path)] * lag]
    if not distributed.agree(all(file.exists() for file in needed)):
        return None
    try:
        drawn = rollout.read(path, texts=True)
        arrays = [files.read_array(file) for file in needed[1:]]
        found = Drawn(drawn, group_rewards.rewards_of(drawn, run.reward), *arrays)
    except InputError as error:
        found = None
        print(f"{error}; these rollouts are not used", file=sys.stderr)
    return None if distributed.any_process(found is None) else found


def _sampler_path(path: Path) -> Path:
    return path.with_suffix(".npy")


def _old_path(path: Path) -> Path:
    return path.with_suffix(".old.npy")


def path_of(run: Run, step: int) -> Path:
    """Where RL logs the rollouts of a step."""
    return run.workdir / "rl" / "rollouts" / f"{step:06d}.jsonl"
