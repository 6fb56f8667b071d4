"""What a training stage changes: made, stepped, saved, and restored from the newest checkpoint that is whole."""

import functools
import operator
import pathlib
import sys
import time
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from jax import lax

from spct_jax import distributed
from spct_jax.errors import InputError
from spct_jax.models import checkpoints
from spct_jax.sharding import Layout


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
    """The state that begins with `params`, its optimiser's part made where it belongs."""
    where = layout.state(jax.eval_shape(lambda p: TrainState(params=p, opt_state=optimizer.init(p)), params))
    return TrainState(params=params, opt_state=jax.jit(optimizer.init, out_shardings=where.opt_state)(params))


def apply_gradients(state: TrainState, gradients: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """One optimiser step."""
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    return TrainState(params=optax.apply_updates(state.params, updates), opt_state=opt_state)


@jax.jit
def fingerprint(state: TrainState) -> jax.Array:
    """A number that changes when a bit of the state does, and not with the mesh."""

    def one(number, leaf):
        unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
        bits = lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
        return (2 * number + 1) * jnp.sum(bits, dtype=jnp.uint32)

    return functools.reduce(operator.add, [one(i, leaf) for i, leaf in enumerate(jax.tree.leaves(state))])


def save(manager: ocp.CheckpointManager, step: int, state: TrainState, progress: dict[str, float]) -> None:
    """Writes a checkpoint of a step, with what tells a damaged one from a whole one."""
    progress = progress | {"fingerprint": int(fingerprint(state))}
    manager.save(
        step,
        args=ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            opt_state=ocp.args.StandardSave(state.opt_state),
            progress=ocp.args.JsonSave(progress),
        ),
    )


def restore_newest(
    manager: ocp.CheckpointManager, target: TrainState, directory: pathlib.Path
) -> tuple[int, TrainState | None, dict[str, float]]:
    """(step, state, progress) of the newest checkpoint that is whole, (0, None, {}) if there are none at all.

    Damaged ones are reported and, once an earlier one is read, moved to `directory/damaged`, so that their steps can be saved
    again.

    Raises:
      InputError: a parameter is missing, unexpected, or of another shape, or there are checkpoints and none is whole.
    """
    damaged = []
    for step in sorted(manager.all_steps(), reverse=True):
        damage = ""
        try:
            state, progress = restore(manager, step, target, directory)
        except InputError:
            raise
        except Exception as error:  # Orbax raises Exception itself for files that cannot be read
            damage = str(error).partition("\n")[0]
        if not distributed.any_process(bool(damage)):
            if int(fingerprint(state)) == progress.pop("fingerprint", None):
                _set_aside(manager, damaged, directory)
                return step, state, progress
            damage = "its bits are not those that were saved"
        damaged.append(step)
        print(f"{directory}: checkpoint {step} is damaged ({damage or 'says another process'})", file=sys.stderr)
    if damaged:
        raise InputError(f"{directory}: no checkpoint is whole; to train this stage from its start, remove the directory")
    return 0, None, {}


def _set_aside(manager: ocp.CheckpointManager, steps: list[int], directory: pathlib.Path) -> None:
    """Moves checkpoints where the manager does not see them."""
    if not steps:
        return
    if distributed.is_first():
        for step in steps:
            target = directory / "damaged" / f"{step}-{time.time_ns()}"
            target.parent.mkdir(exist_ok=True)
            (directory / "checkpoints" / str(step)).rename(target)
    distributed.barrier(f"{directory.name}: damaged checkpoints moved")
    manager.reload()


def restore(
    manager: ocp.CheckpointManager, step: int, target: TrainState, directory: pathlib.Path
) -> tuple[TrainState, dict[str, float]]:
    """The state and progress of a step, every part of a leaf read where `target` (see `abstract_state`) wants it.

    Raises:
      InputError: a parameter is missing, unexpected, or of another shape.
    """
    checkpoints.check_tree(manager.item_metadata(step)["params"], target.params, directory)
    path = directory / "checkpoints" / str(step)
    # Not by the manager, in which processes wait for each other: one that cannot read its part must be able to say so.
    arrays = ocp.StandardCheckpointHandler()
    params = arrays.restore(path / "params", args=ocp.args.StandardRestore(target.params))
    opt_state = arrays.restore(path / "opt_state", args=ocp.args.StandardRestore(target.opt_state))
    progress = ocp.JsonCheckpointHandler().restore(path / "progress", args=ocp.args.JsonRestore())
    return TrainState(params=params, opt_state=opt_state), progress
