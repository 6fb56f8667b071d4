"""Rule-based online RL with GRPO: each step draws groups of completions, has them rewarded, and learns from them."""

import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Int, Num

from spct_jax.data import draws
from spct_jax.errors import InputError
from spct_jax.grm import rewards
from spct_jax.grm.prompts import Rollout
from spct_jax.models import flops
from spct_jax.runtime import distributed
from spct_jax.sampling import Usage
from spct_jax.training import (
    group_rewards,
    grpo,
    loop,
    optimizers,
    packing,
    parameters,
    performance,
    preambles,
    rejection,
    rl_rollouts,
    rollout,
)
from spct_jax.training.context import Run
from spct_jax.training.experience import Collector
from spct_jax.training.metrics import Mean, Metrics, merge
from spct_jax.training.packing import Packed

SOLVED = "solved by the policy of the rejection stage in all draws"


def run_rl(run: Run) -> dict[str, float]:
    """Runs GRPO from the RFT policy (or the cold start, if RFT is not among the stages), which is also the fixed reference."""
    config, problems = run.config.rl, problems_of(run)
    optimizer = optimizers.make(config.optimizer, config.steps * config.updates_per_rollout)
    hyperparameters = grpo.GRPOHyperparameters(config.kl_beta, config.clip, config.temperature)
    state = loop.abstract_state(run, "rl", optimizer)
    collector = Collector(run, state)
    train_step = grpo.make_step(run.layout, state, run.model, optimizer, collector.preamble)

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
    """What a step drew: the rewards given, completions that are right, malformed and truncated, groups whose rewards are all
    equal; then how many groups it drew, and the share of unequal rewards among those that it learns from.
    """
    signal = group_rewards.with_signal(given)
    return {
        "reward": Mean(given.sum(), given.size),
        "accuracy": Mean(sum(rewards.is_correct(s, r.truth) for r in drawn for s in r.scores), given.size),
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
    learned = packing.update_arithmetic(run, [packed])
    prefill = flops.prefill(model, 1, before) + flops.prefill(model, prompts, trunk - before, before)
    return (
        performance.roofline_seconds(run.rollout_layout, prefill)
        + steps * performance.roofline_seconds(run.rollout_layout, decode, collector.policy_bytes)
        + (1 + config.rollout_lag) * performance.roofline_seconds(run.layout, scored)
        + config.updates_per_rollout * performance.roofline_seconds(run.layout, learned)
    )


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
        drawn = rollout.read(rl_rollouts.path_of(run, step))
        yield from zip(prompts_of(run, problems, step)[: len(drawn)], drawn, strict=True)
