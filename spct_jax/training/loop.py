"""The loop of all training stages: it saves, resumes, measures, and stops on a bad loss."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
import orbax.checkpoint as ocp
import tqdm

from spct_jax import checkpoints, distributed
from spct_jax.checkpoints import steps as saved_steps
from spct_jax.checkpoints import train_state
from spct_jax.checkpoints.train_state import TrainState
from spct_jax.errors import InputError
from spct_jax.training import performance
from spct_jax.training.context import Run
from spct_jax.training.metric_writer import MetricWriter
from spct_jax.training.metrics import Mean, Metrics, compute
from spct_jax.training.parameters import kind_of


class BadLossError(InputError):
    """A loss or gradient was not finite. The same command would fail again, since batches follow from the configuration."""


@dataclasses.dataclass(frozen=True)
class StepResult:
    """What a stage's update returns to the loop."""

    state: TrainState
    metrics: Metrics
    ids: Sequence[str]
    """Ids of the records in the batch, for the error message if a metric is not finite."""
    tokens: jax.Array | float
    """Number of completion tokens that it learned from."""
    roofline_seconds: float
    """Minimum time of the step on these devices; 0 where that is not known."""


def abstract_state(run: Run, stage: str, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes, dtypes and shardings of what a stage trains."""
    return train_state.abstract_state(run.layout, checkpoints.abstract_params(run.model, kind_of(stage)), optimizer)


class _Progress:
    """A stage's totals so far, restarts included: seconds, tokens, and the means that its summary includes."""

    def __init__(self, saved: dict[str, Any]):
        self.watch = performance.Stopwatch(saved)
        self._tokens, self._sums = saved.get("tokens", 0.0), saved.get("sums", {})

    def add(self, tokens: float, metrics: Metrics) -> None:
        """Adds one step; its metrics are on the host."""
        self._tokens += tokens
        for name, metric in metrics.items():
            if isinstance(metric, Mean) and metric.in_summary:
                total, count = self._sums.get(name, (0.0, 0.0))
                self._sums[name] = [float(total) + float(metric.total), float(count) + float(metric.count)]

    def as_saved(self) -> dict[str, Any]:
        """What a checkpoint stores of it."""
        return {**self.watch.read(), "tokens": self._tokens, "sums": self._sums}

    def summary(self, steps: int) -> dict[str, float]:
        """The summary of a finished stage."""
        spent = self.watch.read()
        speed = performance.speed(self._tokens, {"seconds": 0.0, "compile_seconds": 0.0}, spent)
        means = {name: total / count for name, (total, count) in self._sums.items() if count}
        return {**spent, "steps": steps, "tokens": self._tokens, "tokens_per_second": speed, **means}


class _Saves:
    """The checkpoints of a stage."""

    def __init__(
        self,
        run: Run,
        stage: str,
        manager: ocp.CheckpointManager,
        progress: _Progress,
        writer: MetricWriter | None,
        first: int,
    ):
        """`first`: the step that the stage goes on from, 0 where there is no checkpoint yet."""
        self._settings, self._stage, self._manager = run.config.checkpoint, stage, manager
        self._progress, self._writer = progress, writer
        self._when, self._last = time.monotonic(), first

    def due(self, done: int, steps: int) -> bool:
        """Whether it is time for a checkpoint after `done` of all `steps`; the first process's clock holds for all."""
        every, minutes = self._settings.every_steps, self._settings.every_minutes
        late = minutes and distributed.agree(time.monotonic() - self._when > 60 * minutes)
        return bool(done % every == 0 or done == steps or late)

    def save(self, done: int, state: TrainState, ids: Sequence[str]) -> None:
        """Begins to write the state after `done` steps; `ids` are those of the last one's batch, for messages."""
        # Finite gradients can still give a state that is not finite.
        name = checkpoints.first_not_finite(state)
        self.check(f"{name} is not finite after the update" if name else "", done - 1, ids)
        if self._writer is not None:
            self._writer.flush()
        train_state.save(self._manager, done, state, self._progress.as_saved())
        self._when, self._last = time.monotonic(), done

    def stop(self, done: int, state: TrainState, ids: Sequence[str]) -> None:
        """Has the state after `done` steps on the disk, unless it is there already."""
        if done > self._last:
            self.save(done, state, ids)
        saved_steps.finish(self._manager)

    def check(self, wrong: str, step: int, ids: Sequence[str]) -> None:
        """BadLossError if anything is `wrong` with a step."""
        if not wrong:
            return
        last = self._last
        left = f"the last checkpoint, {last}, is intact" if last else "there is no checkpoint yet"
        if 0 < last == step:
            left = f"the last checkpoint, {last}, holds the very parameters that this step began with"
        raise BadLossError(f"{self._stage} step {step}: {wrong}; batch: {', '.join(ids)}; {left}")


def fit(
    run: Run,
    stage: str,
    make_params: Callable[[], Any],
    optimizer: optax.GradientTransformation,
    update: Callable[[TrainState, int], StepResult],
    steps: int,
) -> dict[str, float]:
    """Runs `update(state, step)` for every step not yet done and returns a summary; the state is in the last checkpoint.

    `make_params` returns the first parameters, placed by `run.layout`; the state takes them over.
    A checkpoint is written every `checkpoint.every_steps` steps, after `checkpoint.every_minutes`, on SIGTERM or SIGINT and
    after the last step; a restarted run continues from the newest.
    `update` depends only on (state, step), so a continued run gives the same results as one that was never stopped.
    As long as it has not passed the state to a program that reuses its memory, it may raise StoppedError: then the step is
    dropped, and the state that it would have changed is saved.

    Raises:
      BadLossError: a metric, or a state that is to be saved, is NaN or infinite; nothing of that step is saved.
      distributed.StoppedError: SIGTERM or SIGINT came; the last complete step is saved.
    """
    directory, kept, leads = run.workdir / stage, run.config.checkpoint, distributed.is_first()
    with contextlib.ExitStack() as stack:
        first, state, earlier = train_state.restore_newest(abstract_state(run, stage, optimizer), directory)
        manager = stack.enter_context(saved_steps.manager(directory, keep=kept.keep, keep_hours=kept.keep_hours))
        if state is None:
            state = train_state.make_state(run.layout, make_params(), optimizer)
        progress, ids = _Progress(earlier), ()
        writer = stack.enter_context(MetricWriter(directory, first)) if leads else None
        profiler = stack.enter_context(performance.Profiler(run.workdir / "profile" / stage, run.config.profile_steps))
        bar = stack.enter_context(tqdm.tqdm(range(first, steps), stage, steps, initial=first, unit="step", disable=not leads))
        saves = _Saves(run, stage, manager, progress, writer, first)
        for step in bar:
            profiler.before(step)
            begun = progress.watch.read()
            try:
                result = update(state, step)
            except distributed.StoppedError:
                saves.stop(step, state, ids)
                raise
            state, ids = result.state, result.ids
            metrics, tokens = jax.device_get((result.metrics, result.tokens))  # all at once
            progress.add(float(tokens), metrics)
            values = compute(metrics)
            wrong = next((f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)), "")
            saves.check(wrong, step, ids)
            if writer is not None:
                cost = performance.cost(float(tokens), result.roofline_seconds, begun, progress.watch.read())
                writer.write(step, values | cost)
            bar.set_postfix({k: f"{v:.3f}" for k, v in values.items() if k in ("loss", "reward", "accuracy")}, refresh=False)
            done, stopping = step + 1, distributed.PREEMPTION.asked()
            if stopping:
                saves.stop(done, state, ids)
                raise distributed.StoppedError
            if saves.due(done, steps):
                saves.save(done, state, ids)
    return progress.summary(steps)
