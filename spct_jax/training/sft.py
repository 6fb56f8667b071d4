"""Supervised fine-tuning on completions that share prompts: the cold start, and RFT on what rejection sampling kept."""

import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import optax
from jaxtyping import Array, Float

from spct_jax.checkpoints import train_state
from spct_jax.data.batches import Groups
from spct_jax.models import Trunk
from spct_jax.models.config import ModelConfig
from spct_jax.runtime import distributed
from spct_jax.sharding import Layout
from spct_jax.training import (
    accumulation,
    bucket_choice,
    buckets,
    fitting,
    loop,
    mixture,
    optimizers,
    packing,
    parameters,
    performance,
    preambles,
    rejection,
)
from spct_jax.training.config import RFTConfig, SFTConfig
from spct_jax.training.context import Run
from spct_jax.training.group_logprobs import completion_mask, group_logprobs
from spct_jax.training.metrics import Mean, Metrics
from spct_jax.training.mixture import Pool, Rows
from spct_jax.training.packing import Packing
from spct_jax.training.preambles import Preamble


def sft_loss(
    params: Any,
    config: ModelConfig,
    groups: Groups,
    total: Float[Array, ""],
    preamble: Trunk | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """Mean negative log-likelihood of the completion tokens; the terminator counts, prompts and padding do not.

    `total` is the number of completion tokens of the batch that `groups` are, or are a micro-batch of; `preamble` is as of
    `group_logprobs`.
    """
    logprobs, entropy = group_logprobs(params, config, groups, preamble=preamble)
    mask = completion_mask(groups)
    tokens = mask.sum()
    loss = -(logprobs * mask).sum() / total
    metrics = {
        "loss": Mean(loss * total, tokens),
        "entropy": Mean((entropy * mask).sum(), tokens),
        "branch_slots_used": Mean((groups.lengths > 0).sum(), float(groups.lengths.size), in_summary=True),
        **buckets.usage(groups),
    }
    return loss, metrics


def make_step(
    layout: Layout,
    state: train_state.TrainState,
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    preamble: Preamble = (),
) -> accumulation.Step:
    """The update; its batches are `Groups`, each with its own G, and the loss is the mean over the tokens of all of them."""

    def loss(params, shared, groups, total):
        value, metrics = sft_loss(params, model, groups, total, preambles.trunk(shared, groups))
        return value, (metrics, None)

    share = preambles.share(model, preamble)
    return accumulation.Step(layout, state, optimizer, loss, lambda groups: completion_mask(groups).sum(), share)


def train(
    run: Run, stage: str, config: SFTConfig | RFTConfig, judging: Pool, general: Pool, skipped: Mapping[str, int]
) -> dict[str, Any]:
    """Runs a stage on examples that judge and general ones, as `mixture.Mixture` mixes them; returns its summary.

    `skipped` says how many others there are that do not fit, by reason.
    """
    optimizer = optimizers.make(config.optimizer, config.steps)
    mixed = mixture.Mixture(run.config.seed, stage, config.batch_size, config.general_fraction, judging, general)
    shapes = mixture.shapes(mixed.rows, config.batch_size, config.accumulate, run.layout.batch_shards)
    state = loop.abstract_state(run, stage, optimizer)
    unused = _unused(mixed.rows, config, judging, general)
    for reason, count in unused.items():
        distributed.say(f"{stage}: {count:,} examples are not learned from, since {reason}")

    preamble = preambles.of(run, run.prompter.template)

    def lengths_of(size):
        return lambda step: (packing.lengths(*example.tokens(), preamble) for example in mixed.batch(step)[size])

    packings = {}
    for size, (rows, count) in shapes.items():
        table = bucket_choice.buckets_of(run, stage, size, (rows, count), lengths_of(size))
        packings[size] = Packing(size, run.limits.lengths, count, table, preamble, rows)
    train_step = make_step(run.layout, state, run.model, optimizer, preamble)

    def prepare(step):
        examples = mixed.batch(step)
        packed = [packing.pack(run, examples[size], how) for size, how in packings.items()]
        return loop.Prepared(
            batches=[p.batch(p.groups) for p in packed],
            ids=[e.id for size in shapes for e in examples[size]],
            tokens=sum(p.tokens for p in packed),
            roofline_seconds=performance.roofline_seconds(run.layout, packing.update_arithmetic(run, packed)),
        )

    parameters.describe(run, stage)
    first = functools.partial(parameters.policy_before, run, stage)
    summary = loop.fit(run, stage, first, optimizer, prepare, loop.learn_with(train_step), config.steps)
    read, left_out = judging.count + general.count + sum(skipped.values()), {**skipped, **unused}
    return summary | {"data": {"read": read, "used": read - sum(left_out.values()), "skipped": left_out}}


def run_sft(run: Run) -> dict[str, Any]:
    """Cold start: demonstrations of judging, general instructions mixed in."""
    judging, skipped = fitting.demonstrations(run, "demonstrations")
    general, others = fitting.demonstrations(run, "general")
    return train(run, "sft", run.config.sft, judging, general, Counter(skipped) + Counter(others))


def run_rft(run: Run) -> dict[str, Any]:
    """Rejective fine-tuning: retained draws, general instructions mixed in."""
    retained = rejection.retained_examples(run)
    judging = Pool(retained, np.array([e.size for e in retained]))
    general, skipped = fitting.demonstrations(run, "general")
    return train(run, "rft", run.config.rft, judging, general, skipped)


def _unused(rows: Rows, config: SFTConfig | RFTConfig, judging: Pool, general: Pool) -> dict[str, int]:
    """How many examples of a kind there are of which a step has none, by reason."""
    share = f"general_fraction={config.general_fraction:g} of batch_size={config.batch_size}"
    found = {
        f"{share} is no example": 0 if rows.general else general.count,
        f"{share} is every example": 0 if rows.single + rows.pairs else judging.count,
    }
    return {reason: count for reason, count in found.items() if count}
