"""The meta reward model (paper section 4): one scalar that tells a correct critique from a wrong one.

It starts from the RL policy's parameters and is trained with binary cross-entropy on Eq. 10 correctness, on the unhinted
rejection draws (kept or not) and on what that policy writes (`meta_rm.policy_data`). The critiques of one prompt are branches
of one trunk here too.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from spct_jax.checkpoints import train_state
from spct_jax.data import draws
from spct_jax.data.batches import Example, Groups
from spct_jax.models import Trunk
from spct_jax.models.config import ModelConfig
from spct_jax.reward_models.scalar import scalar_rewards
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
    rejection,
    rl,
)
from spct_jax.training.context import Run
from spct_jax.training.metrics import Mean, Metrics
from spct_jax.training.packing import Packing
from spct_jax.training.preambles import Preamble


def meta_loss(
    params: Any,
    config: ModelConfig,
    groups: Groups,
    labels: Float[Array | np.ndarray, "B G"],
    total: Float[Array, ""],
    preamble: Trunk | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """Binary cross-entropy of correctness labels, 0 or 1, averaged over critiques; empty ones do not count.

    `total` is the number of critiques of the batch that `groups` are, or are a micro-batch of; `preamble` is as of
    `scalar_rewards`.
    """
    logits = scalar_rewards(params, config, groups, preamble)
    present = _present(groups)
    count = present.sum()
    loss = (optax.sigmoid_binary_cross_entropy(logits, labels) * present).sum() / total
    right = ((logits > 0) == (labels > 0.5)) * present
    metrics = {
        "loss": Mean(loss * total, count),
        "accuracy": Mean(right.sum(), count),
        "branch_slots_used": Mean(count, float(present.size), in_summary=True),
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
    """The update; rows are (groups, labels Float32[B G])."""

    def loss(params, shared, rows, total):
        value, metrics = meta_loss(params, model, *rows, total, preambles.trunk(shared, rows[0]))
        return value, (metrics, None)

    share = preambles.share(model, preamble, lambda params: params["model"])
    return accumulation.Step(layout, state, optimizer, loss, lambda rows: _present(rows[0]).sum(), share)


def _present(groups: Groups) -> Float[Array, "B G"]:
    """1 for every critique that there is, else 0."""
    return (groups.lengths > 0).astype(jnp.float32)


def run_meta_rm(run: Run) -> dict[str, float]:
    """Trains the meta RM."""
    config = run.config.meta_rm
    optimizer = optimizers.make(config.optimizer, config.steps)
    drawing = rejection.draw(run, rejection.FINAL) if config.policy_data == "draws" else None
    examples = examples_of(run)
    group_size = max(example.size for example, _ in examples)
    state = loop.abstract_state(run, "meta_rm", optimizer)
    preamble = preambles.of(run, run.prompter.meta)

    def chosen_at(step):
        chosen = draws.order(run.config.seed, "meta_rm", len(examples), step, config.batch_size)
        return zip(*(examples[i] for i in chosen), strict=True)

    def lengths_at(step):
        rows, _ = chosen_at(step)
        return (packing.lengths(*row.tokens(), preamble) for row in rows)

    table = bucket_choice.buckets_of(run, "meta_rm", group_size, (config.batch_size, config.accumulate), lengths_at)
    how = Packing(group_size, run.limits.lengths, config.accumulate, table, preamble)
    train_step = make_step(run.layout, state, run.model, optimizer, preamble)

    def prepare(step):
        rows, right = chosen_at(step)
        packed = packing.pack(run, rows, how)
        return loop.Prepared(
            batches=[packed.batch((packed.groups, packed.labels(run.layout, right, group_size)))],
            ids=[row.id for row in rows],
            tokens=packed.tokens,
            roofline_seconds=performance.roofline_seconds(run.layout, packing.update_arithmetic(run, [packed], scalar=True)),
        )

    parameters.describe(run, "meta_rm")
    first = functools.partial(parameters.with_score_head, run, "meta_rm")
    summary = loop.fit(run, "meta_rm", first, optimizer, prepare, loop.learn_with(train_step), config.steps)
    counts = {"critiques": sum(e.size for e, _ in examples), "correct": sum(sum(right) for _, right in examples)}
    drawn = {"drawing_seconds": drawing["seconds"], "useful_slots": drawing["useful_slots"]} if drawing else {}
    return summary | counts | drawn


def examples_of(run: Run) -> list[tuple[Example, list[bool]]]:
    """(meta prompt with its critiques, which of them are correct) of every group that the meta RM learns from."""
    groups = []
    if "rejection" in run.config.stages:
        groups += rejection.read(run, rejection.UNHINTED)
    if run.config.meta_rm.policy_data == "draws":
        groups += rejection.read(run, rejection.FINAL)
    elif "rl" in run.config.stages:
        groups += rl.read_rollouts(run)

    def tokens(number, rollout):
        return run.prompter.encode_meta(run.dataset.train[number], rollout.order), rollout.completions

    return [
        (Example(r.id, len(r.completions), functools.partial(tokens, number, r)), rejection.correct(r)) for number, r in groups
    ]
