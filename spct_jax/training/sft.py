"""Supervised fine-tuning on completions that share prompts: the cold start, and RFT on what rejection sampling kept."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from spct_jax.data import batches
from spct_jax.data.batches import Example, Groups
from spct_jax.errors import InputError
from spct_jax.models import count
from spct_jax.models.sizes import ModelConfig
from spct_jax.sharding import Program
from spct_jax.training import loop, meter, optimizers, rejection, train_state
from spct_jax.training.run import Run
from spct_jax.training.scoring import completion_mask, group_logprobs


def sft_loss(
    params: Any, config: ModelConfig, groups: Groups, total: jax.Array | None = None
) -> tuple[jax.Array, loop.Metrics]:
    """Mean negative log-likelihood of the completion tokens; the terminator counts, prompts and padding do not.

    `total` is the number of tokens of the whole batch, where `groups` are a part of it.
    """
    logprobs, entropy = group_logprobs(params, config, groups)
    mask = completion_mask(groups)
    tokens = mask.sum()
    total = tokens if total is None else total
    loss = -(logprobs * mask).sum() / total
    return loss, {"loss": (loss * total, tokens), "entropy": ((entropy * mask).sum(), tokens), "tokens": (tokens, 1.0)}


def sft_gradients(params: Any, groups: Groups, *, config: ModelConfig, accumulate: int = 1) -> tuple[Any, loop.Metrics]:
    """Gradients of `sft_loss` and its metrics, in `accumulate` parts."""
    total = completion_mask(groups).sum()

    def loss(params, groups):
        value, metrics = sft_loss(params, config, groups, total)
        return value, (metrics, None)

    return loop.gradients(loss, params, groups, accumulate)[:2]


def _step(
    state: train_state.TrainState,
    groups: Groups,
    *,
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    accumulate: int = 1,
) -> tuple[train_state.TrainState, loop.Metrics]:
    """One update; returns (state, metrics)."""
    gradients, metrics = sft_gradients(state.params, groups, config=config, accumulate=accumulate)
    return train_state.apply_gradients(state, gradients, optimizer), metrics


sft_step = Program(_step, ("state", "batch"), lambda layout, state, *_, **__: (layout.state(state), layout.whole), donate=(0,))


def train(
    run: Run,
    stage: str,
    make_params: Callable[[], Any],
    draw_batch: Callable[[int], list[Example]],
    *,
    steps: int,
    group_size: int,
    accumulate: int,
    optimizer_config,
) -> dict[str, float]:
    """Runs `steps` updates on the examples `draw_batch(step)` gives; returns the stage's summary."""
    optimizer = optimizers.make(optimizer_config, steps)

    def update(state, step):
        examples = draw_batch(step)
        groups = run.pack(examples, group_size)
        state, metrics = sft_step(
            state, groups, layout=run.layout, config=run.model, optimizer=optimizer, accumulate=accumulate
        )
        flops = count.update(run.model, len(examples), group_size, run.limits.max_prompt - 1, run.limits.max_completion)
        metrics["least_seconds"] = (meter.least_seconds(run.layout, flops), 1.0)
        return state, metrics, [e.id for e in examples]

    run.describe(stage, "policy")
    return loop.fit(run, stage, make_params, optimizer, update, steps)


def run_sft(run: Run) -> dict[str, float]:
    """Cold start: demonstrations of judging and general instructions, shuffled together."""
    config = run.config.sft
    examples, group_size, skipped = run.demonstrations("demonstrations", "general")
    if not examples:
        raise InputError(f"no demonstration can be used ({skipped or 'there are none'})")

    def draw_batch(step):
        return [examples[i] for i in batches.order(run.config.seed, "sft", len(examples), step, config.batch_size)]

    summary = train(
        run,
        "sft",
        lambda: run.policy_before("sft"),
        draw_batch,
        steps=config.steps,
        group_size=group_size,
        accumulate=config.accumulate,
        optimizer_config=config.optimizer,
    )
    return {
        **summary,
        "data": {"read": len(examples) + sum(skipped.values()), "used": len(examples), "skipped": skipped},
    }


def run_rft(run: Run) -> dict[str, float]:
    """Rejective fine-tuning: every retained draw of a comparison on one trunk, general instructions mixed in."""
    config = run.config.rft
    retained = rejection.retained_examples(run)
    if not retained:
        raise InputError("rft: rejection sampling kept no draw; train the cold start (config.sft) longer")
    general, largest, skipped = run.demonstrations("general")
    num_general = round(config.batch_size * config.general_fraction) if general else 0

    def draw_batch(step):
        seed = run.config.seed
        kept = batches.order(seed, "rft", len(retained), step, config.batch_size - num_general)
        plain = batches.order(seed, "rft-general", len(general), step, num_general)
        return [retained[i] for i in kept] + [general[i] for i in plain]

    summary = train(
        run,
        "rft",
        lambda: run.policy_before("rft"),
        draw_batch,
        steps=config.steps,
        group_size=max(*(e.size for e in retained), largest if num_general else 0),
        accumulate=config.accumulate,
        optimizer_config=config.optimizer,
    )
    used = len(retained) + len(general)
    return {**summary, "data": {"read": used + sum(skipped.values()), "used": used, "skipped": skipped}}
