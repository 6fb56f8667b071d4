"""What all training stages share: gradients and metrics, and a loop that saves, resumes, measures and stops on a bad loss."""

import contextlib
import functools
import math
import operator
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from jax import lax

from spct_jax import checkpoints, distributed
from spct_jax.checkpoints import steps as saved_steps
from spct_jax.checkpoints import train_state
from spct_jax.checkpoints.train_state import TrainState
from spct_jax.errors import InputError
from spct_jax.sharding import logical
from spct_jax.training import meter
from spct_jax.training.context import Run, kind_of
from spct_jax.training.writers import MetricWriter

Metrics = dict[str, tuple[jax.Array, jax.Array]]
"""Name -> (sum, count): what is averaged is decided once, at the end."""


class BadLossError(InputError):
    """A loss or gradient was not finite. The same command would come to it again: batches follow from the configuration."""


LARGEST = ("sampler_drift", "ratio_max")
"""Metrics whose sum is the largest value, over one count."""

SUMMARISED = ("branch_slots_used", "truncated", "zero_spread")
"""Metrics whose mean over all steps is in a stage's summary."""

P95_EDGES = np.exp(np.arange(-64, 194) / 100)
"""Values that a 95th percentile is told apart by: one per cent from 0.53 to 6.9."""


def p95(logs: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The metric of the 95th percentile of exp(`logs`) where `mask`, of the same shape, is 1; its name ends in "_p95".

    Its sum is a histogram, how many values lie behind the edge before and up to each of `P95_EDGES` (those beyond are counted
    at the ends), so that parts of a batch add up to what the batch is. The edge it is read as is at most 1 % too high.
    """
    place = jnp.clip(jnp.ceil(logs * 100).astype(jnp.int32) + 64, 0, len(P95_EDGES) - 1)
    return jnp.zeros(len(P95_EDGES)).at[place.ravel()].add(mask.ravel()), mask.sum()


def add_metrics(a: Metrics, b: Metrics) -> Metrics:
    """The metrics of two parts together."""

    def one(name):
        combine = jnp.maximum if name in LARGEST else operator.add
        return tuple(combine(x, y) for x, y in zip(a[name], b[name], strict=True))

    return {name: one(name) for name in a}


def split_rows(batch: Any, count: int) -> Any:
    """A tree of arrays [B ..] as `count` micro-batches, [count B/count ..]: number m has rows m, m + count, .."""

    def split(x):
        # Strided, so that rows stay on the device that has them.
        return logical.constrain(jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), None, "batch")

    return jax.tree.map(split, batch)


def join_rows(micro_batches: Any) -> Any:
    """The rows [B ..] of what `split_rows` split."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), micro_batches)


def gradients(loss: Callable, params: Any, batch: Any, micro_batches: int = 1, onto: Any = None) -> tuple[Any, Metrics, Any]:
    """Gradients of a loss over a batch, taken of one micro-batch after the other.

    Args:
      loss: `loss(params, batch) -> (loss, (metrics, per_row))`; the losses of micro-batches add up to the loss of the batch.
      params: what it is differentiated by.
      batch: a tree of arrays of rows, B first.
      micro_batches: how many; divides B.
      onto: gradients of rows of another shape, which these are added to.

    Returns:
      (gradients in the parameters' dtype, split as the parameters are, the metrics, per_row of all rows).
    """
    grad = jax.grad(loss, has_aux=True)
    if micro_batches == 1:
        total, (metrics, per_row) = grad(params, batch)
        total = total if onto is None else jax.tree.map(jnp.add, onto, total)
    else:

        def step(total, rows):
            part, (metrics, per_row) = grad(params, rows)
            return logical.constrain_params(jax.tree.map(jnp.add, total, part)), (metrics, per_row)

        begun = logical.constrain_params(jax.tree.map(jnp.zeros_like, params) if onto is None else onto)
        total, (each, per_row) = lax.scan(step, begun, split_rows(batch, micro_batches))
        rows = [jax.tree.map(lambda x, p=p: x[p], each) for p in range(micro_batches)]
        metrics = functools.reduce(add_metrics, rows)
        per_row = join_rows(per_row)
    metrics["gradient_norm"] = (optax.tree.norm(total), 1.0)
    return logical.constrain_params(total), metrics, per_row


def mean(metrics: Metrics) -> dict[str, float]:
    """Host floats of (sum, count) pairs; an empty count gives 0."""

    def one(name, total, count):
        if not count:
            return 0.0
        if name.endswith("_p95"):
            return float(P95_EDGES[np.searchsorted(np.cumsum(total, dtype=np.float64), 0.95 * count)])
        return float(total) / float(count)

    return {name: one(name, *pair) for name, pair in jax.device_get(metrics).items()}


def add_to_sums(sums: dict[str, list[float]], metrics: Metrics) -> dict[str, list[float]]:
    """Name -> [sum, count] of the `SUMMARISED` metrics over the steps so far, those of one more step, on the host, added."""
    new = {name: metrics[name] for name in SUMMARISED if name in metrics}
    return {
        name: [float(a) + float(b) for a, b in zip(sums.get(name, (0, 0)), pair, strict=True)] for name, pair in new.items()
    }


def abstract_state(run: Run, stage: str, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes, dtypes and shardings of what a stage trains."""
    return train_state.abstract_state(run.layout, checkpoints.abstract_params(run.model, kind_of(stage)), optimizer)


def fit(
    run: Run,
    stage: str,
    make_params: Callable[[], Any],
    optimizer: optax.GradientTransformation,
    update: Callable[[TrainState, int], tuple[TrainState, Metrics, Sequence[str]]],
    steps: int,
) -> dict[str, float]:
    """Runs `update(state, step)` for every step not yet done and returns a summary; the state is in the last checkpoint.

    `make_params` gives the first parameters, where `run.layout` wants them; the state takes them over.
    A checkpoint is written every `checkpoint.every_steps` steps, after `checkpoint.every_minutes`, on SIGTERM or SIGINT and
    after the last step; a restarted run goes on from the newest.
    `update` is a function of (state, step) only, so the continued run is the run that was never stopped. It returns the
    ids of the records in its batch, named should the loss not be finite. The metric "tokens" counts, "least_seconds" is how
    long the step must take (0: not known), others are averaged.

    Raises:
      BadLossError: a metric, or the state where it is to be saved, is NaN or infinite; nothing of that step is saved.
      distributed.StoppedError: SIGTERM or SIGINT came; the last step is saved.
    """
    directory, saving = run.workdir / stage, run.config.checkpoint
    with contextlib.ExitStack() as stack:
        target = abstract_state(run, stage, optimizer)
        first, state, progress = train_state.restore_newest(target, directory)
        manager = stack.enter_context(saved_steps.manager(directory, keep=saving.keep, keep_hours=saving.keep_hours))
        if state is None:
            state = train_state.make_state(run.layout, make_params(), optimizer)
        watch, tokens = meter.Stopwatch(progress), progress.get("tokens", 0.0)
        sums = progress.get("sums", {})
        leads = distributed.is_first()
        writer = stack.enter_context(MetricWriter(directory, first)) if leads else None
        profiler = stack.enter_context(meter.Profiler(run.workdir / "profile" / stage, run.config.profile_steps))
        bar = stack.enter_context(tqdm.tqdm(range(first, steps), stage, steps, initial=first, unit="step", disable=not leads))
        saved, last = time.monotonic(), first
        for step in bar:
            profiler.before(step)
            begun = watch.read()
            state, metrics, ids = update(state, step)
            metrics = jax.device_get(metrics)  # all at once
            new, least = (float(metrics.pop(name)[0]) for name in ("tokens", "least_seconds"))
            tokens += new
            sums = add_to_sums(sums, metrics)
            values = mean(metrics)
            wrong = next((f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)), "")
            _check_finite(wrong, stage, step, ids, last)
            cost = meter.cost(new, least, begun, watch.read())
            if writer is not None:
                writer.write(step, values | cost)
            bar.set_postfix({k: f"{v:.3f}" for k, v in values.items() if k in ("loss", "reward", "accuracy")}, refresh=False)
            done, stopping = step + 1, distributed.PREEMPTION.asked()
            late = saving.every_minutes and distributed.agree(time.monotonic() - saved > 60 * saving.every_minutes)
            if done % saving.every_steps == 0 or done == steps or stopping or late:
                # A finite gradient may yet make a state that is not.
                name = checkpoints.first_not_finite(state)
                _check_finite(f"{name} is not finite after the update" if name else "", stage, step, ids, last)
                if writer is not None:
                    writer.flush()
                train_state.save(manager, done, state, {**watch.read(), "tokens": tokens, "sums": sums})
                saved, last = time.monotonic(), done
            if stopping:
                saved_steps.finish(manager)
                raise distributed.StoppedError
    summary = {**watch.read(), "steps": steps, "tokens": tokens}
    means = {name: total / count for name, (total, count) in sums.items() if count}
    return {**summary, "tokens_per_second": meter.speed(tokens, {"seconds": 0.0, "compile_seconds": 0.0}, summary), **means}


def _check_finite(wrong: str, stage: str, step: int, ids: Sequence[str], last: int) -> None:
    """BadLossError if anything is `wrong` with a step; `last` is the step of the last checkpoint, 0 if there is none."""
    if not wrong:
        return
    left = f"the last checkpoint, {last}, is intact" if last else "there is no checkpoint yet"
    if 0 < last == step:
        left = f"the last checkpoint, {last}, holds the very parameters that this step began with"
    raise BadLossError(f"{stage} step {step}: {wrong}; batch: {', '.join(ids)}; {left}")
