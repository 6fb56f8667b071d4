"""GRPO (paper Eq. 15): the loss and its update, every group on one trunk. The stage is `training.rl`."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from spct_jax.checkpoints import train_state
from spct_jax.data.batches import Groups
from spct_jax.models import Trunk
from spct_jax.models.config import ModelConfig
from spct_jax.sharding import Layout
from spct_jax.training import accumulation, buckets, preambles
from spct_jax.training.group_logprobs import completion_mask, group_logprobs
from spct_jax.training.metrics import Max, Mean, Metrics, Percentile
from spct_jax.training.micro_batches import MicroBatched
from spct_jax.training.preambles import Preamble


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
    total: Float[Array, ""],
    preamble: Trunk | None = None,
) -> tuple[Float[Array, ""], tuple[Metrics, Float[Array, "B G T"]]]:
    """Negative Eq. 15: clipped surrogate minus beta times the k3 estimate of KL, averaged per sequence, then over sequences.

    Args:
      params: parameters of the policy.
      config: its architecture.
      batch: groups, or a micro-batch of them; the losses of micro-batches add up to that of the batch.
      hyperparameters: `beta`, `clip` and `temperature`.
      total: number of sequences of the complete batch.
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
    # Of a token that the policy has all but ruled out, the estimate would be infinite, and NaN even where beta is 0.
    reference = jnp.minimum(batch.ref_logprobs, jax.lax.stop_gradient(logprobs) + 20)
    log_ref_ratio = jnp.where(mask > 0, reference - logprobs, 0)
    kl = jnp.exp(log_ref_ratio) - log_ref_ratio - 1
    per_sequence = ((surrogate - hyperparameters.beta * kl) * mask).sum(-1) / jnp.maximum(mask.sum(-1), 1)
    tokens, sequences = mask.sum(), float(per_sequence.size)
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

    def loss(params, shared, batch, total, hyperparameters):
        return grpo_loss(params, model, batch, hyperparameters, total, preambles.trunk(shared, batch.groups))

    share = preambles.share(model, preamble)
    return accumulation.Step(layout, state, optimizer, loss, lambda batch: jnp.float32(batch.groups.lengths.size), share)


def make_reference(layout: Layout, params: Any, model: ModelConfig, preamble: Preamble = ()) -> MicroBatched:
    """The log-probabilities of a policy that is not updated: (params, a `Batch` of `Groups`, temperature) -> Float32[B G T].

    They are computed in as many micro-batches as the update, so that memory that is enough for the update is enough for them.
    """

    def score(params, shared, groups, temperature):
        return group_logprobs(params, model, groups, temperature, preambles.trunk(shared, groups))[0]

    return MicroBatched(layout, params, score, preambles.share(model, preamble))
