"""What a training stage changes: made, stepped, saved, and restored from the newest checkpoint that is intact."""

import time
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import optax
import orbax.checkpoint as ocp

from spct_jax.checkpoints import restore, steps
from spct_jax.runtime import distributed
from spct_jax.sharding import Layout
from spct_jax.storage import files
from spct_jax.storage.paths import Path


@flax.struct.dataclass
class TrainState:
    """Everything a stage changes."""

    params: Any
    opt_state: Any


def abstract_state(layout: Layout | None, params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes, dtypes and, given a layout, shardings of the state that begins with parameters of these shapes."""
    state = jax.eval_shape(lambda p: TrainState(params=p, opt_state=optimizer.init(p)), params)
    if layout is None:
        return state
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, layout.state(state))


def make_state(layout: Layout, params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state that begins with `params`; the optimiser's state is made in the shardings of the layout."""
    shardings = layout.state(jax.eval_shape(lambda p: TrainState(params=p, opt_state=optimizer.init(p)), params))
    return TrainState(params=params, opt_state=jax.jit(optimizer.init, out_shardings=shardings.opt_state)(params))


def apply_gradients(state: TrainState, gradients: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """One optimiser step."""
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    return TrainState(params=optax.apply_updates(state.params, updates), opt_state=opt_state)


def save(manager: ocp.CheckpointManager, step: int, state: TrainState, progress: dict[str, float]) -> None:
    """Writes a checkpoint of a step, with what tells a damaged one from an intact one."""
    steps.save(manager, step, state.params, state.opt_state, progress)


def restore_newest(target: TrainState, directory: Path) -> tuple[int, TrainState | None, dict[str, float]]:
    """(step, state, progress) of the newest checkpoint that is intact, (0, None, {}) if there are none at all.

    Each device reads its own shards only, as `target` (see `abstract_state`) says. Damaged checkpoints are reported and,
    once an earlier one is read, moved to `directory/damaged`, so that their steps can be saved again.

    Raises:
      InputError: a parameter is missing, unexpected, or of another shape, or there are checkpoints and none is intact.
    """
    stored = restore.read_newest(directory, {"params": target.params, "opt_state": target.opt_state})
    if stored is None:
        return 0, None, {}
    _set_aside(stored.damaged, directory)
    return stored.step, TrainState(**stored.trees), stored.progress


def _set_aside(damaged: Sequence[int], directory: Path) -> None:
    """Moves checkpoints where no reader looks for them."""
    if not damaged:
        return
    if distributed.is_first():
        for step in damaged:
            files.move(steps.root(directory) / str(step), directory / "damaged" / f"{step}-{time.time_ns()}")
    distributed.barrier(f"{directory.name}: damaged checkpoints moved")
