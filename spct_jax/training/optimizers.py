"""Optimisers of the training stages, as the configuration names them."""

from typing import Any

import jax
import optax
import optax.contrib

from spct_jax.training.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, peak: float, steps: int) -> optax.Schedule:
    """Linear warm-up to `peak`, plateau, and linear decay to a tenth of `peak`, which takes no step away from the warm-up."""
    warmup = max(min(config.warmup_steps, steps - 1), 1)
    decay = max(min(round(steps * config.decay_fraction), steps - warmup), 1)
    rise, fall = optax.linear_schedule(peak / warmup, peak, warmup - 1), optax.linear_schedule(peak, peak / 10, decay)
    return optax.join_schedules([rise, fall], [steps - decay])


def make(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Adam, Muon or Adafactor on `make_schedule`, and global-norm clipping."""

    def schedule(peak: float) -> optax.Schedule:
        return make_schedule(config, peak, steps)

    if config.name == "muon":
        update = optax.contrib.muon(
            schedule(config.muon_learning_rate),
            adam_learning_rate=schedule(config.learning_rate),
            adam_b1=config.b1,
            adam_b2=config.b2,
            weight_decay=config.weight_decay,
            adam_weight_decay=config.weight_decay,
            mu_dtype=config.mu_dtype,
            muon_weight_dimension_numbers=_matrices,
        )
    elif config.name == "adafactor":
        rate = schedule(config.learning_rate)
        # Optax does not multiply this one by the learning rate.
        decay = (lambda step: config.weight_decay * rate(step)) if config.weight_decay else None
        update = optax.adafactor(rate, multiply_by_parameter_scale=False, weight_decay_rate=decay)
    else:
        update = optax.adamw(
            schedule(config.learning_rate),
            b1=config.b1,
            b2=config.b2,
            mu_dtype=config.mu_dtype,
            weight_decay=config.weight_decay,
        )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update)


MATRIX_AXES = {"q": ((0,), (1, 2)), "k": ((0,), (1, 2)), "v": ((0,), (1, 2)), "out": ((0, 1), (2,))} | {
    name: ((0,), (1,)) for name in ("gate", "up", "down")
}
"""Input and output axes of a layer's matrices, counted after the axis of stacked layers."""


def _matrices(params: Any) -> Any:
    """Muon's view of the parameters: the axes of every matrix inside a layer, None for what is left to Adam."""

    def axes(path, leaf):
        names = [str(getattr(key, "key", key)) for key in path]
        if names[-1] not in MATRIX_AXES:
            return None
        stacked = leaf.ndim - len(sum(MATRIX_AXES[names[-1]], ()))
        reduced, output = (tuple(axis + stacked for axis in group) for group in MATRIX_AXES[names[-1]])
        return optax.contrib.MuonDimensionNumbers(reduction_axis=reduced, output_axis=output)

    return jax.tree_util.tree_map_with_path(axes, params)
