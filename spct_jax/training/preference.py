"""What the stages that train a scalar reward model of responses share: the loss on pairs, the update, and the data.

A comparison of n responses gives n - 1 pairs, its best response with every other. The loss is -log sigmoid of the margin by
which the model puts the better response of a pair above the other, averaged over the pairs of a step.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from spct_jax.checkpoints import train_state
from spct_jax.data import draws, index
from spct_jax.data.batches import Example, Groups, TokenGroup
from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.models import Trunk
from spct_jax.models.config import ModelConfig
from spct_jax.reward_models.scalar import scalar_rewards
from spct_jax.rounding import ceil_div
from spct_jax.sharding import Layout
from spct_jax.training import (
    accumulation,
    bucket_choice,
    buckets,
    loop,
    optimizers,
    packing,
    parameters,
    performance,
    preambles,
)
from spct_jax.training.buckets import Bucket
from spct_jax.training.config import PreferenceConfig
from spct_jax.training.context import Run
from spct_jax.training.metrics import Mean, Metrics
from spct_jax.training.packing import Packing
from spct_jax.training.preambles import Preamble

Margins = Callable[[Float[Array, "B G"], Float[Array, "B G"]], tuple[Float[Array, "B G"], Float[Array, "B G"]]]
"""From rewards and labels to the margin of every pair, and 1 for every pair that there is, else 0."""

Rewards = Callable[[Any, ModelConfig, Groups, Trunk | None], Float[Array, "B G"]]
"""From parameters, architecture, groups and the trunk of their preamble to rewards; see `scalar_rewards`."""


class Objective(NamedTuple):
    """What a model is trained to tell apart."""

    margins: Margins
    rewards: Rewards = scalar_rewards


LENGTHS_IN_STEPS_OF = 8


def preference_loss(
    params: Any,
    config: ModelConfig,
    groups: Groups,
    labels: Float[Array | np.ndarray, "B G"],
    total: Float[Array, ""],
    preamble: Trunk | None = None,
    *,
    objective: Objective,
) -> tuple[Float[Array, ""], Metrics]:
    """-log sigmoid of the margins, averaged over pairs.

    Args:
      params: {"model": ..., "head": ...}.
      config: the architecture.
      groups: prompts and what is rewarded.
      labels: what rewards are made pairs by; 0 where there is nothing to reward.
      total: number of pairs of the batch that `groups` are, or are a micro-batch of.
      preamble: as of `scalar_rewards`.
      objective: how the model rewards, and how rewards make pairs.
    """
    margin, present = objective.margins(objective.rewards(params, config, groups, preamble), labels)
    count = present.sum()
    loss = -(jax.nn.log_sigmoid(margin) * present).sum() / total
    metrics = {
        "loss": Mean(loss * total, count),
        "accuracy": Mean(((margin > 0) * present).sum(), count),
        "margin": Mean((margin * present).sum(), count),
        "branch_slots_used": Mean((groups.lengths > 0).sum(), float(groups.lengths.size), in_summary=True),
        **buckets.usage(groups),
    }
    return loss, metrics


def make_step(
    layout: Layout,
    state: train_state.TrainState,
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    preamble: Preamble = (),
) -> accumulation.Step:
    """The update; rows are (groups, labels Float32[B G])."""

    def loss(params, shared, rows, total):
        value, metrics = preference_loss(params, model, *rows, total, preambles.trunk(shared, rows[0]), objective=objective)
        return value, (metrics, None)

    def pairs(rows):
        _, present = objective.margins(jnp.zeros(rows[1].shape), jnp.asarray(rows[1]))
        return present.sum()

    share = preambles.share(model, preamble, lambda params: params["model"])
    return accumulation.Step(layout, state, optimizer, loss, pairs, share)


@dataclasses.dataclass(frozen=True)
class GroupShape:
    """Shape of the groups of a stage, the same at every step."""

    max_prompt: int
    max_completion: int
    group_size: int
    samples: int = 1
    """Completions that one label is for."""
    preamble: Preamble = ()
    """What most of the prompts begin with."""

    @property
    def limits(self) -> Bucket:
        """The longest prompt and completion."""
        return self.max_prompt, self.max_completion


def train(
    run: Run,
    stage: str,
    config: PreferenceConfig,
    numbers: Int[np.ndarray, " N"],
    shape: GroupShape,
    objective: Objective,
    make: Callable[[int, Comparison, int], tuple[Callable[[], TokenGroup], Sequence[float]]],
    left_out: Mapping[str, int] = types.MappingProxyType({}),
) -> dict[str, Any]:
    """Runs a stage; returns its summary.

    Args:
      run: the run.
      stage: its name.
      config: its fields.
      numbers: the training comparisons that it learns from.
      shape: of its groups.
      objective: what the model learns to tell apart.
      make: from a training comparison's number, itself and the number of the step to what makes its group's tokens, and its
        labels.
      left_out: how many comparisons the stage itself leaves out of `numbers`, by reason.
    """
    optimizer = optimizers.make(config.optimizer, config.steps)
    state, shares = loop.abstract_state(run, stage, optimizer), run.dataset.train[numbers].shares

    def chosen_at(step):
        examples, labels = [], []
        chosen = draws.order(run.config.seed, stage, len(numbers), step, config.batch_size, shares)
        for number in numbers[chosen].tolist():
            comparison = run.dataset.train[number]
            tokens, given = make(number, comparison, step)
            examples.append(Example(comparison.id, len(given) * shape.samples, tokens))
            labels.append(given)
        return examples, labels

    def lengths_at(step):
        examples, _ = chosen_at(step)
        return (packing.lengths(*example.tokens(), shape.preamble) for example in examples)

    batch = config.batch_size, config.accumulate
    table = bucket_choice.buckets_of(run, stage, shape.group_size, batch, lengths_at, limits=shape.limits)
    how = Packing(shape.group_size, shape.limits, config.accumulate, table, shape.preamble)
    train_step = make_step(run.layout, state, run.model, optimizer, objective, shape.preamble)

    def prepare(step):
        examples, labels = chosen_at(step)
        packed = packing.pack(run, examples, how)
        labelled = packed.groups, packed.labels(run.layout, labels, shape.group_size // shape.samples)
        arithmetic = packing.update_arithmetic(run, [packed], scalar=True)
        return loop.Prepared(
            batches=[packed.batch(labelled)],
            ids=[example.id for example in examples],
            tokens=packed.tokens,
            roofline_seconds=performance.roofline_seconds(run.layout, arithmetic),
            metrics={"flops": Mean(arithmetic, 1.0, in_summary=True)},
        )

    parameters.describe(run, stage)
    first = functools.partial(parameters.with_score_head, run, stage)
    summary = loop.fit(run, stage, first, optimizer, prepare, loop.learn_with(train_step), config.steps)
    read, several, used = len(run.dataset.train), len(compared(run, stage)), len(numbers)
    beyond = several - used - sum(left_out.values())
    reasons = {"a single response": read - several, f"beyond {stage}.problems": beyond, **left_out}
    skipped = {reason: count for reason, count in reasons.items() if count}
    counted = {"flops": config.steps * summary["flops"], "data": {"read": read, "used": used, "skipped": skipped}}
    return summary | counted


def compared(run: Run, stage: str) -> Int[np.ndarray, " N"]:
    """Numbers of the training comparisons of several responses, ascending; InputError if there are none."""
    numbers = np.flatnonzero(run.dataset.responses > 1)
    if not numbers.size:
        raise InputError(f"{stage}: all training comparisons have a single response; there are no pairs to learn from")
    return numbers


def longest(run: Run, stage: str, measure: Callable[[Comparison], tuple[int, int]]) -> tuple[int, int]:
    """Tokens of the longest prompt, and of the longest completion, of all training comparisons, for the shape of a stage.

    Args:
      run: the run.
      stage: its name.
      measure: the tokens of a comparison's prompt, and of its longest completion.
    """
    data = run.config.data
    stamp = f"{run.prompter.digest} {data.max_prompt} {data.max_completion} {run.config.stages}"
    kept = run.workdir / "data" / f"{stage}_lengths.survey"
    prompt, completion = index.survey(run.dataset.train, measure, kept, stamp, shape=(2,)).max(axis=0).tolist()
    return round_up(prompt), round_up(completion)


def round_up(length: int) -> int:
    """The length in a shape for that many tokens, one of few, so that few programs are compiled."""
    return ceil_div(length, LENGTHS_IN_STEPS_OF) * LENGTHS_IN_STEPS_OF
