"""What the steps of RL learn from: completions drawn for them, rewarded, and scored by the reference."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Num

from spct_jax.checkpoints import train_state
from spct_jax.data.batches import Example
from spct_jax.errors import InputError
from spct_jax.grm.prompts import Rollout
from spct_jax.runtime import distributed
from spct_jax.sampling import Usage, engine_params
from spct_jax.sharding import bytes_per_device
from spct_jax.training import (
    bucket_choice,
    dynamic_sampling,
    group_rewards,
    grpo,
    packing,
    parameters,
    preambles,
    rl_rollouts,
    rollout,
)
from spct_jax.training.buckets import Bucket
from spct_jax.training.context import Run
from spct_jax.training.packing import Packed, Packing
from spct_jax.training.rl_rollouts import Drawn

GROWTH = 1.5
"""Buckets are chosen with room for completions that become this many times longer than those of the first step."""


class Experience(NamedTuple):
    """What a step learns from."""

    rollouts: list[Rollout]
    """All that were drawn for it."""
    rewards: Num[np.ndarray, "drawn G"]
    chosen: Int[np.ndarray, " B"]
    """Which of them it learns from."""
    packed: Packed
    batch: grpo.GRPOBatch
    usage: Usage | None
    """Of the sampler; None where the rollouts were read."""


class Collector:
    """Draws what the steps of RL learn from, and has it scored by the reference.

    With `rl.rollout_lag` = 1, what step t + 1 learns from is drawn and scored by the policy that step t begins with, and logged
    with the scores: a run that goes on from there has that policy no more.
    """

    def __init__(self, run: Run, state: train_state.TrainState):
        """`state`: abstract, of what is trained."""
        config = run.config.rl
        self._run, self._config, self._ahead = run, config, dict[int, Experience]()
        self._reference = parameters.policy_before(run, "rl", config.ref_dtype)
        drawn_with, _ = engine_params.decode_model(run.rollout_layout, run.model)
        self.policy_bytes = bytes_per_device(drawn_with, run.rollout_layout.params(drawn_with))
        """Of the parameters that a device draws with."""
        held = [(state, run.layout.state(state)), (self._reference, run.layout.params(self._reference))]
        traffic = {"slots": config.slots, "prompts": config.batch_size, "samples": config.group_size}
        self.shape = rollout.shape_of(run, "rl", **traffic, beside=sum(bytes_per_device(*each) for each in held))
        """Of the engines that draw."""
        self.preamble = preambles.of(run, run.prompter.template)
        """Computed once for all prompts of a step."""
        self._logprobs = grpo.make_reference(run.layout, self._reference, run.model, self.preamble)
        self._table: tuple[Bucket, ...] | None = None

    def steps(self, step: int) -> range:
        """The steps whose experience there is when a step has been drawn for."""
        return range(step, min(step + self._config.rollout_lag, self._config.steps - 1) + 1)

    def take(self, params: Any, step: int, numbers: Mapping[int, list[int]]) -> Experience:
        """What a step learns from.

        Args:
          params: of the policy that the step begins with, by which everything is drawn that has to be drawn now.
          step: number of the step.
          numbers: for each of `steps(step)`, those of the training comparisons that it may draw.

        Raises:
          InputError: rollouts of an earlier policy are needed and not logged.
          distributed.StoppedError: SIGTERM or SIGINT came.
        """
        for later in self.steps(step):
            if later not in self._ahead:
                self._ahead[later] = self._make(params, later, numbers[later], step)
        return self._ahead.pop(step)

    def _make(self, params: Any, step: int, numbers: list[int], now: int) -> Experience:
        run, config = self._run, self._config
        drawn, usage = self._draw(params, step, numbers, now)
        distributed.PREEMPTION.check()
        chosen = dynamic_sampling.chosen(group_rewards.with_signal(drawn.rewards), config.batch_size)
        examples = [packing.example_of(run, numbers[i], drawn.rollouts[i]) for i in chosen]
        table = self._buckets(examples)
        packed = packing.pack(
            run, examples, Packing(config.group_size, run.limits.lengths, config.accumulate, table, self.preamble)
        )
        batch = grpo.GRPOBatch(
            groups=packed.groups,
            advantages=run.layout.split(group_rewards.advantages(drawn.rewards[chosen])[packed.order]),
            old_logprobs=self._old(params, step, drawn, packed) if config.rollout_lag else None,
            ref_logprobs=self._logprobs(self._reference, packed.batch(packed.groups), config.temperature),
            sampler_logprobs=run.layout.split(drawn.sampler_logprobs[chosen][packed.order]),
        )
        return Experience(drawn.rollouts, drawn.rewards, chosen, packed, batch, usage)

    def _draw(self, params: Any, step: int, numbers: list[int], now: int) -> tuple[Drawn, Usage | None]:
        """What a step draws, at step `now`: read, where it is logged, or else drawn."""
        run, usage = self._run, Usage()
        drawn_by_now = now == max(step - self._config.rollout_lag, 0)
        reads = run.config.checkpoint.reuse_rollouts or not drawn_by_now
        if logged := rl_rollouts.read_log(run, step) if reads else None:
            return logged, None
        if not drawn_by_now:
            raise InputError(
                f"{rl_rollouts.path_of(run, step)}: is not there with its arrays, and the policy that drew it is no more; "
                f"remove {run.workdir / 'rl' / 'checkpoints' / str(now)} to go on from an earlier step"
            )
        return rl_rollouts.roll_out(run, params, numbers, step, self.shape, usage), usage

    def _buckets(self, examples: Sequence[Example]) -> tuple[Bucket, ...]:
        """The buckets of all steps, from the examples of the first: before it, nothing says how long completions are."""
        if self._table is None:
            config, lengths = self._config, [packing.lengths(*example.tokens(), self.preamble) for example in examples]
            shape = config.batch_size, config.accumulate
            self._table = bucket_choice.buckets_of(self._run, "rl", config.group_size, shape, lambda _: lengths, growth=GROWTH)
        return self._table

    def _old(self, params: Any, step: int, drawn: Drawn, packed: Packed) -> Float[Array, "B G T"]:
        """Log-probabilities under the policy that drew, in the order of the rows."""
        if drawn.old_logprobs is not None:
            return self._run.layout.split(drawn.old_logprobs[packed.order])
        found = self._logprobs(params, packed.batch(packed.groups), self._config.temperature)
        rows = distributed.fetch(found)
        in_order = np.empty_like(rows)
        in_order[packed.order] = rows
        rl_rollouts.log_old(self._run, step, in_order)
        return found
