"""The loop of all training stages: it saves, resumes, measures, and stops on a bad loss.

While the devices compute a step, the host makes what the next one learns from and writes down what the one before gave, so that
devices need not wait for it.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, Generic, TypeVar

import jax
import optax
import orbax.checkpoint as ocp
import tqdm

from spct_jax import checkpoints
from spct_jax.checkpoints import steps as saved_steps
from spct_jax.checkpoints import train_state
from spct_jax.checkpoints.train_state import TrainState
from spct_jax.errors import InputError
from spct_jax.runtime import distributed, idle
from spct_jax.training import performance
from spct_jax.training.accumulation import Step
from spct_jax.training.context import Run
from spct_jax.training.metric_writer import MetricWriter
from spct_jax.training.metrics import Mean, Metrics, compute
from spct_jax.training.micro_batches import Batch
from spct_jax.training.parameters import kind_of

Made = TypeVar("Made")


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


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a step of supervised learning learns from."""

    batches: Sequence[Batch]
    """For the update."""
    ids: Sequence[str]
    """As in `StepResult`, and so are the next two."""
    tokens: jax.Array | float
    roofline_seconds: float
    metrics: Metrics = dataclasses.field(default_factory=dict)
    """In addition to those of the update."""


def learn_with(train_step: Step) -> Callable[[TrainState, int, Prepared], StepResult]:
    """The `update` of a stage that only makes `train_step` with what is prepared."""

    def update(state: TrainState, _: int, prepared: Prepared) -> StepResult:
        state, metrics, _ = train_step(state, prepared.batches)
        return StepResult(state, metrics | prepared.metrics, prepared.ids, prepared.tokens, prepared.roofline_seconds)

    return update


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

    def look(self) -> Callable[[], bool]:
        """Begins to find out whether it is time to save by the first process's clock; the function returned says it."""
        minutes = self._settings.every_minutes
        if not minutes:
            return lambda: False
        return distributed.begin_any(distributed.is_first() and time.monotonic() - self._when > 60 * minutes)

    def due(self, done: int, steps: int) -> bool:
        """Whether a checkpoint is due after `done` of all `steps`, whatever the clock says."""
        return done % self._settings.every_steps == 0 or done == steps

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


class _Results:
    """What steps gave, in order: added up and written once the devices have been given the next step."""

    def __init__(self, progress: _Progress, writer: MetricWriter | None, saves: _Saves, bar: tqdm.tqdm):
        self._progress, self._writer, self._saves, self._bar = progress, writer, saves, bar
        self._waiting: tuple[int, StepResult] | None = None
        self._read, self._idle = progress.watch.read(), idle.CLOCK.seconds
        self.ids: Sequence[str] = ()
        """Of the batch of the last step."""

    def add(self, step: int, result: StepResult) -> None:
        """Takes what a step will have given, and finishes the one before."""
        self.finish()
        self._waiting, self.ids = (step, result), result.ids

    def finish(self) -> None:
        """Waits for the last step, unless it is finished; raises BadLossError where a metric of its is not finite."""
        if self._waiting is None:
            return
        (step, result), self._waiting = self._waiting, None
        metrics, tokens = jax.device_get((result.metrics, result.tokens))  # all at once
        before, self._read = self._read, self._progress.watch.read()
        waited, self._idle = idle.CLOCK.seconds - self._idle, idle.CLOCK.seconds
        compiled = self._read["compile_seconds"] > before["compile_seconds"]
        share = (0.0, 0.0) if compiled else (waited, self._read["seconds"] - before["seconds"])
        metrics = metrics | {"device_idle": Mean(*share, in_summary=True)}
        self._progress.add(float(tokens), metrics)
        values = compute(metrics)
        wrong = next((f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)), "")
        self._saves.check(wrong, step, result.ids)
        if self._writer is not None:
            cost = performance.cost(float(tokens), result.roofline_seconds, before, self._read)
            self._writer.write(step, values | cost)
        shown = {k: f"{v:.3f}" for k, v in values.items() if k in ("loss", "reward", "accuracy")}
        self._bar.set_postfix(shown, refresh=False)


class _Ahead(Generic[Made]):
    """What a stage prepares for its steps, each while the devices compute the one before.

    One process does so in a thread. Several may exchange data for it, which all must do at the same point of the program: they
    do so once the devices have been given the step before.
    """

    def __init__(self, prepare: Callable[[int], Made], steps: int):
        self._prepare, self._steps = prepare, steps
        self._thread = None if distributed.several() else futures.ThreadPoolExecutor(1, "next step")
        self._next: futures.Future[Made] = futures.Future()

    def begin(self, step: int) -> None:
        """Prepares the first step."""
        self._next = self._submit(step)

    def take(self, step: int) -> Made:
        """What a step needs; a thread goes on with the next."""
        made = self._next.result()
        if self._thread is not None:
            self._next = self._submit(step + 1)
        return made

    def given(self, step: int) -> None:
        """The devices have been given a step."""
        if self._thread is None:
            self._next = self._submit(step + 1)

    def _submit(self, step: int) -> futures.Future[Made]:
        if step < self._steps and self._thread is not None:
            return self._thread.submit(self._prepare, step)
        made: futures.Future[Made] = futures.Future()
        if step < self._steps:
            try:
                made.set_result(self._prepare(step))
            except Exception as error:  # raised where the step is taken
                made.set_exception(error)
        return made

    def __enter__(self) -> "_Ahead[Made]":
        return self

    def __exit__(self, *exception) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)


def fit(
    run: Run,
    stage: str,
    make_params: Callable[[], Any],
    optimizer: optax.GradientTransformation,
    prepare: Callable[[int], Made],
    update: Callable[[TrainState, int, Made], StepResult],
    steps: int,
) -> dict[str, float]:
    """Runs `update(state, step, prepare(step))` for every step not yet done and returns a summary.

    The state is in the last checkpoint. `make_params` returns the first parameters, placed by `run.layout`; the state takes
    them over. A checkpoint is written every `checkpoint.every_steps` steps, after `checkpoint.every_minutes`, on SIGTERM or
    SIGINT and after the last step; a restarted run continues from the newest.
    `prepare` depends only on the step, `update` only on its arguments, so a continued run gives the same results as one that
    was never stopped. While the devices compute a step, `prepare` is called for the next, by a thread, and the metrics of the
    one before are fetched and written. `prepare` may put arrays on the devices; only one of the two may read records.
    As long as it has not passed the state to a program that reuses its memory, `update` may raise StoppedError: then the step
    is dropped, and the state that it would have changed is saved.

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
        progress = _Progress(earlier)
        writer = stack.enter_context(MetricWriter(directory, first)) if leads else None
        profiler = stack.enter_context(performance.Profiler(run.workdir / "profile" / stage, run.config.profile_steps))
        bar = stack.enter_context(tqdm.tqdm(range(first, steps), stage, steps, initial=first, unit="step", disable=not leads))
        bar.set_postfix_str("compiling")  # until there is something to show of the first step
        saves = _Saves(run, stage, manager, progress, writer, first)
        results = _Results(progress, writer, saves, bar)
        ahead = stack.enter_context(_Ahead(prepare, steps))
        ahead.begin(first)
        for step in bar:
            profiler.before(step, results.finish)
            # Asked before the step is begun: devices answer in the order in which they are asked.
            told, late = distributed.PREEMPTION.look(), saves.look()
            try:
                result = update(state, step, ahead.take(step))
            except Exception as error:
                results.finish()  # if the step before was not finite, that is the cause
                if isinstance(error, distributed.StoppedError):
                    saves.stop(step, state, results.ids)
                raise
            state, done = result.state, step + 1
            ahead.given(step)
            results.add(step, result)
            if told():
                results.finish()
                saves.stop(done, state, results.ids)
                raise distributed.StoppedError
            if late() or saves.due(done, steps):
                results.finish()
                saves.save(done, state, results.ids)
    return progress.summary(steps)
