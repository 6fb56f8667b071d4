"""Rule-based online RL with GRPO (paper Eq. 11 and 15), every group on one trunk."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num

from spct_jax import distributed
from spct_jax.checkpoints import train_state
from spct_jax.data import draws
from spct_jax.data.batches import Example, Groups
from spct_jax.errors import InputError
from spct_jax.grm.prompts import Rollout
from spct_jax.models import Trunk, flops
from spct_jax.models.config import ModelConfig
from spct_jax.sampling import Usage, engine_programs
from spct_jax.sharding import Layout, bytes_per_device
from spct_jax.training import (
    accumulation,
    bucket_choice,
    buckets,
    dynamic_sampling,
    loop,
    optimizers,
    packing,
    parameters,
    performance,
    preambles,
    rejection,
    rollout,
)
from spct_jax.training.buckets import Bucket
from spct_jax.training.context import Run
from spct_jax.training.group_logprobs import completion_mask, group_logprobs
from spct_jax.training.metrics import Max, Mean, Metrics, Percentile, merge
from spct_jax.training.micro_batches import MicroBatched
from spct_jax.training.packing import Packed
from spct_jax.training.preambles import Preamble
from spct_jax.training.rollout import Drawn


def group_advantages(rewards: Num[np.ndarray, "B G"]) -> Float[np.ndarray, "B G"]:
    """(r - mean) / std within each group, population std, in float32; zero where all rewards of a group are equal."""
    rewards = np.asarray(rewards, np.float32)
    spread = rewards.max(axis=1, keepdims=True) > rewards.min(axis=1, keepdims=True)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    return np.where(spread, centred / np.where(spread, rewards.std(axis=1, keepdims=True), 1.0), 0.0).astype(np.float32)


@flax.struct.dataclass
class GRPOBatch:
    """What an update learns from: B groups of G completions, with their advantages and log-probabilities."""

    groups: Groups
    advantages: Float[Array | np.ndarray, "B G"]
    old_logprobs: Float[Array | np.ndarray, "B G T"] | None
    """Under the policy that the rollout was drawn from; None where that is the policy that is updated, and the ratio is 1 by
    construction: on the first update after a rollout, unless rollouts lag behind."""
    ref_logprobs: Float[Array | np.ndarray, "B G T"]
    """Under the fixed reference policy, at the rollout temperature."""
    sampler_logprobs: Float[Array | np.ndarray, "B G T"]
    """As the sampler reported them; the metric `sampler_drift` says how far the old ones differ."""


@flax.struct.dataclass
class GRPOHyperparameters:
    """Numbers of the loss: arguments of the update, not part of its program."""

    beta: Float[ArrayLike, ""]
    """Weight of the KL estimate."""
    clip: Float[ArrayLike, ""]
    """The ratio is clipped to 1 - clip .. 1 + clip."""
    temperature: Float[ArrayLike, ""]
    """Of the rollout; all log-probabilities are taken at it."""


def grpo_loss(
    params: Any,
    config: ModelConfig,
    batch: GRPOBatch,
    hyperparameters: GRPOHyperparameters,
    total: Float[Array, ""] | None = None,
    preamble: Trunk | None = None,
) -> tuple[Float[Array, ""], tuple[Metrics, Float[Array, "B G T"]]]:
    """Negative Eq. 15: clipped surrogate minus beta times the k3 estimate of KL, averaged per sequence, then over sequences.

    Args:
      params: parameters of the policy.
      config: its architecture.
      batch: groups, or a micro-batch of them, whose losses add up to that of the complete batch.
      hyperparameters: `beta`, `clip` and `temperature`.
      total: number of sequences of the complete batch, if `batch` is a micro-batch of it.
      preamble: as of `group_logprobs`.

    Returns:
      (loss, (metrics, the policy's log-probabilities)).
    """
    groups, clip = batch.groups, hyperparameters.clip
    logprobs, entropy = group_logprobs(params, config, groups, hyperparameters.temperature, preamble)
    old = jax.lax.stop_gradient(logprobs) if batch.old_logprobs is None else batch.old_logprobs
    mask = completion_mask(groups)
    # Of completion tokens only: after them, exp may be infinite, and 0 times infinity is NaN.
    log_ratio = jnp.where(mask > 0, logprobs - old, 0)
    # 60 is far above any clip, and exp(60) is finite: an infinite ratio would have a NaN gradient where it is clipped.
    ratio = jnp.exp(jnp.minimum(log_ratio, 60))
    gain = batch.advantages[..., None]
    surrogate = jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - clip, 1 + clip) * gain)
    log_ref_ratio = jnp.where(mask > 0, batch.ref_logprobs - logprobs, 0)
    kl = jnp.exp(log_ref_ratio) - log_ref_ratio - 1
    per_sequence = ((surrogate - hyperparameters.beta * kl) * mask).sum(-1) / jnp.maximum(mask.sum(-1), 1)
    tokens, sequences = mask.sum(), float(per_sequence.size)
    total = sequences if total is None else total
    loss = -per_sequence.sum() / total

    clipped = (jnp.abs(ratio - 1) > clip) & (jnp.sign(ratio - 1) == jnp.sign(gain))
    drift = jnp.where(mask > 0, jnp.abs(jnp.exp(old - batch.sampler_logprobs) - 1), 0)
    metrics = {
        "loss": Mean(loss * total, sequences),
        "kl": Mean((kl * mask).sum(), tokens),
        "entropy": Mean((entropy * mask).sum(), tokens),
        "clip_fraction": Mean((clipped * mask).sum(), tokens),
        "ratio_mean": Mean((ratio * mask).sum(), tokens),
        "ratio_p95": Percentile.of_exp(log_ratio, mask, 95),
        "ratio_max": Max((ratio * mask).max()),
        "sampler_drift": Max(drift.max()),
        "length": Mean(tokens, sequences),
        **buckets.usage(groups),
    }
    return loss, (metrics, logprobs)


def make_step(
    layout: Layout,
    state: train_state.TrainState,
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    preamble: Preamble = (),
) -> accumulation.Step:
    """The update; rows are a `GRPOBatch`, `GRPOHyperparameters` are given, the rest are the policy's log-probabilities."""

    def loss(params, keys, batch, total, hyperparameters):
        return grpo_loss(params, model, batch, hyperparameters, total, preambles.trunk(keys, batch.groups))

    share = preambles.share(model, preamble)
    return accumulation.Step(layout, state, optimizer, loss, lambda batch: jnp.float32(batch.groups.lengths.size), share)


def make_reference(layout: Layout, params: Any, model: ModelConfig, preamble: Preamble = ()) -> MicroBatched:
    """The log-probabilities of a policy that is not updated: (params, a `Batch` of `Groups`, temperature) -> Float32[B G T].

    They are computed in as many micro-batches as the update, so that memory that is enough for the update is enough for them.
    """

    def score(params, keys, groups, temperature):
        return group_logprobs(params, model, groups, temperature, preambles.trunk(keys, groups))[0]

    return MicroBatched(layout, params, score, preambles.share(model, preamble))


class Experience(NamedTuple):
    """What a step learns from."""

    rollouts: list[Rollout]
    """All that were drawn for it."""
    rewards: Num[np.ndarray, "drawn G"]
    chosen: Int[np.ndarray, " B"]
    """Which of them it learns from."""
    packed: Packed
    batch: GRPOBatch
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
        drawn_with, _ = engine_programs.decode_model(run.rollout_layout, run.model)
        self.policy_bytes = bytes_per_device(drawn_with, run.rollout_layout.params(drawn_with))
        """Of the parameters that a device draws with."""
        held = [(state, run.layout.state(state)), (self._reference, run.layout.params(self._reference))]
        traffic = {"slots": config.slots, "prompts": config.batch_size, "samples": config.group_size}
        self.shape = rollout.shape_of(run, "rl", **traffic, beside=sum(bytes_per_device(*each) for each in held))
        """Of the engines that draw."""
        self.preamble = preambles.of(run, run.prompter.template)
        """Computed once for all prompts of a step."""
        self._logprobs = make_reference(run.layout, self._reference, run.model, self.preamble)
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
        chosen = dynamic_sampling.chosen(dynamic_sampling.with_signal(drawn.rewards), config.batch_size)
        examples = [packing.example_of(run, numbers[i], drawn.rollouts[i]) for i in chosen]
        shapes = {"micro_batches": config.accumulate, "table": self._buckets(examples), "preamble": self.preamble}
        packed = packing.pack(run, examples, config.group_size, **shapes)
        batch = GRPOBatch(
            groups=packed.groups,
            advantages=run.layout.split(group_advantages(drawn.rewards[chosen])[packed.order]),
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
        if logged := rollout.read_log(run, step) if reads else None:
            return logged, None
        if not drawn_by_now:
            raise InputError(
                f"{rollout.path_of(run, step)}: is not there with its arrays, and the policy that drew it is no more; "
                f"remove {run.workdir / 'rl' / 'checkpoints' / str(now)} to go on from an earlier step"
            )
        return rollout.roll_out(run, params, numbers, step, self.shape, usage), usage

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
        rollout.log_old(self._run, step, in_order)
        return found


def run_rl(run: Run) -> dict[str, float]:
    """Runs GRPO from the RFT policy (or the cold start, if RFT is not among the stages), which is also the fixed reference."""
    config, problems = run.config.rl, problems_of(run)
    optimizer = optimizers.make(config.optimizer, config.steps * config.updates_per_rollout)
    hyperparameters = GRPOHyperparameters(config.kl_beta, config.clip, config.temperature)
    state = loop.abstract_state(run, "rl", optimizer)
    collector = Collector(run, state)
    train_step = make_step(run.layout, state, run.model, optimizer, collector.preamble)

    def prepare(step):
        return {each: prompts_of(run, problems, each) for each in collector.steps(step)}

    def update(state, step, numbers):
        learned = collector.take(state.params, step, numbers)
        packed, batch, usage = learned.packed, learned.batch, learned.usage
        # An update of one micro-batch cannot be interrupted, and takes the memory of the state that could be saved.
        jax.block_until_ready(batch.ref_logprobs)
        distributed.PREEMPTION.check()
        metrics = {}
        for number in range(config.updates_per_rollout):
            # What is saved is the state that the step began with, and that is there until the first update is applied.
            state, new, (logprobs,) = train_step(state, [packed.batch(batch)], hyperparameters, stoppable=number == 0)
            metrics = merge(metrics, new) if metrics else new
            batch = batch if batch.old_logprobs is not None else batch.replace(old_logprobs=logprobs)
        slots = {"useful_slots": Mean(usage.tokens, usage.slot_steps, in_summary=True)} if usage else {}
        return loop.StepResult(
            state=state,
            metrics=metrics | outcome_metrics(learned.rollouts, learned.rewards, learned.chosen) | slots,
            ids=[learned.rollouts[i].id for i in learned.chosen],
            tokens=packed.tokens,
            roofline_seconds=roofline_seconds(run, len(learned.rollouts), usage, collector, packed) if usage else 0.0,
        )

    parameters.describe(run, "rl")
    first = functools.partial(parameters.policy_before, run, "rl")
    summary = loop.fit(run, "rl", first, optimizer, prepare, update, config.steps)
    read, used = len(run.dataset.train), len(problems)
    return {**summary, "data": {"read": read, "used": used, "skipped": {SOLVED: read - used} if used < read else {}}}


def outcome_metrics(drawn: Sequence[Rollout], given: Num[np.ndarray, "drawn G"], chosen: Int[np.ndarray, " B"]) -> Metrics:
    """What a step drew: the rewards given, malformed and truncated completions, groups whose rewards are all equal; then how
    many groups it drew, and the share of unequal rewards among those that it learns from.
    """
    signal = dynamic_sampling.with_signal(given)
    return {
        "reward": Mean(given.sum(), given.size),
        "accuracy": Mean((given > 0).sum(), given.size),
        "malformed": Mean(sum(s is None for r in drawn for s in r.scores), given.size),
        "truncated": Mean(sum(cut for r in drawn for cut in r.truncated), given.size, in_summary=True),
        "zero_spread": Mean((~signal).sum(), len(drawn), in_summary=True),
        "groups_drawn": Mean(len(drawn), 1, in_summary=True),
        "with_signal": Mean(signal[chosen].sum(), len(chosen), in_summary=True),
    }


def roofline_seconds(run: Run, prompts: int, usage: Usage, collector: Collector, packed: Packed) -> float:
    """The minimum time of a step that learns from this, 0 where it is not known: rollout, scoring and updates in sequence.

    Every decoding step reads the parameters once and computes a token in every slot.
    """
    config, model, trunk, shape = run.config.rl, run.model, run.limits.max_prompt - 1, collector.shape
    before, slots = shape.preamble, shape.rows * shape.branches
    steps, decode = usage.slot_steps / slots, flops.decode(model, slots, trunk)
    scored = packed.arithmetic(functools.partial(flops.forward, model))
    scored += preambles.arithmetic(run, collector.preamble, gradients=False)
    learned = packing.update_arithmetic(run, [packed], collector.preamble)
    prefill = flops.prefill(model, 1, before) + flops.prefill(model, prompts, trunk - before, before)
    return (
        performance.roofline_seconds(run.rollout_layout, prefill)
        + steps * performance.roofline_seconds(run.rollout_layout, decode, collector.policy_bytes)
        + (1 + config.rollout_lag) * performance.roofline_seconds(run.layout, scored)
        + config.updates_per_rollout * performance.roofline_seconds(run.layout, learned)
    )


GROWTH = 1.5
"""Buckets are chosen with room for completions that become so many times longer than those of the first step."""
SOLVED = "solved by the policy of the rejection stage in all draws"


def problems_of(run: Run) -> Int[np.ndarray, " N"]:
    """Numbers of the training comparisons that RL learns from, ascending.

    Raises:
      InputError: `rl.drop_solved` leaves none.
    """
    every = np.arange(len(run.dataset.train))
    if not (run.config.rl.drop_solved and "rejection" in run.config.stages):
        return every
    left = np.setdiff1d(every, rejection.solved(run))
    if not left.size:
        raise InputError(f"rl: all {every.size} training comparisons are {SOLVED}; set config.rl.drop_solved=False")
    return left


def prompts_of(run: Run, problems: Int[np.ndarray, " N"], step: int) -> list[int]:
    """Numbers of the training comparisons that a step may draw, in order, out of those that RL learns from."""
    config, shares = run.config.rl, run.dataset.train[problems].shares
    most = config.dynamic_sampling * config.batch_size
    return [int(problems[i]) for i in draws.order(run.config.seed, "rl", len(problems), step, most, shares)]


def read_rollouts(run: Run) -> Iterator[tuple[int, Rollout]]:
    """(number of the comparison, its rollout) of all that was drawn in all steps, once they are done."""
    problems = problems_of(run)
    for step in range(run.config.rl.steps):
        drawn = rollout.read(rollout.path_of(run, step))
        yield from zip(prompts_of(run, problems, step)[: len(drawn)], drawn, strict=True)
