"""Rule-based online RL with GRPO (paper Eq. 11 and 15), every group on one trunk."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spct_jax import sharding
from spct_jax.data import batches
from spct_jax.data.batches import Groups
from spct_jax.data.comparison import Comparison
from spct_jax.grm import orders, rewards
from spct_jax.models.sizes import ModelConfig
from spct_jax.sampling import grouped, rollouts
from spct_jax.sampling.rollouts import Rollout
from spct_jax.training import loop
from spct_jax.training.run import Run
from spct_jax.training.scoring import completion_mask, group_logprobs


def group_advantages(rewards: np.ndarray) -> np.ndarray:
    """(r - mean) / std within each group, population std; zero where all rewards of a group are equal.

    Args:
      rewards: Float32[B G].

    Returns:
      Float32[B G].
    """
    rewards = np.asarray(rewards, np.float32)
    spread = rewards.max(axis=1, keepdims=True) > rewards.min(axis=1, keepdims=True)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    return np.where(spread, centred / np.where(spread, rewards.std(axis=1, keepdims=True), 1.0), 0.0).astype(np.float32)


def grpo_loss(
    params: Any,
    config: ModelConfig,
    groups: Groups,
    advantages: jax.Array,
    old_logprobs: jax.Array | None,
    ref_logprobs: jax.Array,
    sampler_logprobs: jax.Array,
    *,
    beta: float,
    clip: float,
    temperature: float,
) -> tuple[jax.Array, tuple[loop.Metrics, jax.Array]]:
    """Negative Eq. 15: clipped surrogate minus beta times the k3 estimate of KL, mean over a sequence, then sequences.

    Args:
      advantages: Float32[B G].
      old_logprobs: Float32[B G T] under the policy that the rollout was drawn from, or None on the first update after a
        rollout, when policy and old policy are the same and the ratio is 1 by construction.
      ref_logprobs: Float32[B G T] under the fixed reference policy, at the rollout temperature.
      sampler_logprobs: Float32[B G T] as the sampler reported them; how far the trainer's differ is reported.

    Returns:
      (loss, (metrics, the policy's log-probabilities Float32[B G T])).
    """
    logprobs, entropy = group_logprobs(params, config, groups, temperature)
    old = jax.lax.stop_gradient(logprobs) if old_logprobs is None else old_logprobs
    mask = completion_mask(groups)
    ratio = jnp.exp(logprobs - old)
    gain = advantages[..., None]
    surrogate = jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - clip, 1 + clip) * gain)
    log_ref_ratio = ref_logprobs - logprobs
    kl = jnp.exp(log_ref_ratio) - log_ref_ratio - 1
    per_sequence = ((surrogate - beta * kl) * mask).sum(-1) / jnp.maximum(mask.sum(-1), 1)
    loss = -per_sequence.mean()

    tokens, sequences = mask.sum(), float(mask.shape[0] * mask.shape[1])
    clipped = (jnp.abs(ratio - 1) > clip) & (jnp.sign(ratio - 1) == jnp.sign(gain))
    drift = jnp.where(mask > 0, jnp.abs(jnp.exp(logprobs - sampler_logprobs) - 1), 0)
    metrics = {
        "loss": (loss * sequences, sequences),
        "kl": ((kl * mask).sum(), tokens),
        "entropy": ((entropy * mask).sum(), tokens),
        "clip_fraction": ((clipped * mask).sum(), tokens),
        "ratio_mean": ((ratio * mask).sum(), tokens),
        "sampler_drift": (drift.max(), 1.0) if old_logprobs is None else (0.0, 0.0),
        "length": (tokens, sequences),
        "tokens": (tokens, 1.0),
    }
    return loss, (metrics, logprobs)


@functools.partial(jax.jit, static_argnames=("config", "optimizer"), donate_argnames="state")
def grpo_step(
    state: loop.TrainState,
    groups: Groups,
    advantages: jax.Array,
    old_logprobs: jax.Array | None,
    ref_logprobs: jax.Array,
    sampler_logprobs: jax.Array,
    *,
    beta: float,
    clip: float,
    temperature: float,
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
) -> tuple[loop.TrainState, loop.Metrics, jax.Array]:
    """One update; returns (state, metrics, the log-probabilities before it). Arguments as of `grpo_loss`."""
    (_, (metrics, logprobs)), gradients = jax.value_and_grad(grpo_loss, has_aux=True)(
        state.params,
        config,
        groups,
        advantages,
        old_logprobs,
        ref_logprobs,
        sampler_logprobs,
        beta=beta,
        clip=clip,
        temperature=temperature,
    )
    metrics["gradient_norm"] = (optax.tree.norm(gradients), 1.0)
    return loop.apply_gradients(state, gradients, optimizer), metrics, logprobs


@functools.partial(jax.jit, static_argnames="config")
def reference_logprobs(params: Any, groups: Groups, *, config: ModelConfig, temperature: float) -> jax.Array:
    """Float32[B G T] under the reference policy."""
    return group_logprobs(params, config, groups, temperature)[0]


def run_rl(run: Run) -> dict[str, float]:
    """GRPO from the RFT policy (or the cold start, where RFT is not among the stages), which stays the reference."""
    config = run.config.rl
    optimizer = loop.make_optimizer(config.optimizer, config.steps * config.updates_per_rollout)
    reference = run.params_of(run.policy_before("rl"))
    comparisons = run.dataset.train

    def make_state():
        params = jax.tree.map(jnp.copy, reference)
        return loop.TrainState(params=params, opt_state=optimizer.init(params))

    def update(state, step):
        batch = [comparisons[i] for i in batches.order(run.config.seed, "rl", len(comparisons), step, config.batch_size)]
        groups, sampler_logprobs, drawn = roll_out(run, state.params, batch, step)
        given = np.array([[rewards.reward(s, c.scores) for s in r.scores] for c, r in zip(batch, drawn, strict=True)])
        advantages = sharding.split(run.mesh, group_advantages(given))
        ref_logprobs = reference_logprobs(reference, groups, config=run.model, temperature=config.temperature)
        old_logprobs, metrics = None, {}
        for _ in range(config.updates_per_rollout):
            state, new, logprobs = grpo_step(
                state,
                groups,
                advantages,
                old_logprobs,
                ref_logprobs,
                sampler_logprobs,
                beta=config.kl_beta,
                clip=config.clip,
                temperature=config.temperature,
                config=run.model,
                optimizer=optimizer,
            )
            metrics = {k: (metrics[k][0] + s, metrics[k][1] + c) if metrics else (s, c) for k, (s, c) in new.items()}
            old_logprobs = logprobs if old_logprobs is None else old_logprobs
        metrics |= {
            "reward": (given.sum(), given.size),
            "accuracy": ((given > 0).sum(), given.size),
            "malformed": (sum(s is None for r in drawn for s in r.scores), given.size),
            "zero_spread": ((given.min(1) == given.max(1)).sum(), len(batch)),
        }
        return state, metrics, [c.id for c in batch]

    run.describe("rl", "policy")
    _, summary = loop.fit(run, "rl", make_state, update, config.steps)
    return summary


def roll_out(run: Run, params: Any, batch: list[Comparison], step: int) -> tuple[Groups, jax.Array, list[Rollout]]:
    """Draws one group per comparison in an order of its own and logs the rollouts of the step.

    Returns:
      (packed groups, the sampler's log-probabilities Float32[B G T], the rollouts).
    """
    config = run.config.rl
    seen = [orders.random_order(c.n, run.config.seed, c.id, step) for c in batch]
    prompts = [run.prompter.encode(c, o) for c, o in zip(batch, seen, strict=True)]
    keys = grouped.sample_keys(run.key("rl", step), batch, config.group_size)
    out = grouped.draw_rows(
        run.mesh, params, run.model, prompts, keys, rows=len(batch), temperature=config.temperature, limits=run.limits
    )
    drawn = [run.prompter.read(c, o, tokens) for c, o, tokens in zip(batch, seen, grouped.token_lists(out), strict=True)]
    rollouts.write(run.workdir / "rl" / "rollouts" / f"{step:06d}.jsonl", drawn)
    groups = run.pack(prompts, [r.completions for r in drawn], config.group_size)
    return groups, sharding.split(run.mesh, out.logprobs), drawn
