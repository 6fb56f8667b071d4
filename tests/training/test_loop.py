"""What the loop of all stages does beside the devices' work, where numbers stop being finite, and where it is told to stop."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stand_ins import stand_in

from spct_jax import models, sharding
from spct_jax.checkpoints import steps, train_state
from spct_jax.config import Config
from spct_jax.errors import InputError
from spct_jax.models import sizes
from spct_jax.runtime import distributed
from spct_jax.training import loop, performance
from spct_jax.training.config import CheckpointConfig
from spct_jax.training.context import Run
from spct_jax.training.metric_writer import read_metrics
from spct_jax.training.metrics import Mean


@pytest.fixture(scope="module")
def params():
    config = dataclasses.replace(sizes.toy(32), num_layers=1, pattern=("global",), width=8, ffw_width=8)
    return config, jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))


def run_of(config, workdir, every_steps):
    settings = Config(checkpoint=CheckpointConfig(every_steps=every_steps, keep=3), profile_steps=(0, 0))
    layout = sharding.make_layout(devices=jax.devices()[:1])
    return stand_in(Run, workdir=workdir, config=settings, layout=layout, model=config)


@pytest.mark.parametrize(
    ("loss_at", "params_at", "refused_at", "says", "left"),
    [
        (1, 9, 9, r"sft step 1: loss is nan; batch: a, b; there is no checkpoint yet$", []),
        (3, 9, 9, r"sft step 3: loss is nan; batch: a, b; the last checkpoint, 2, is intact$", [2]),
        (2, 9, 9, r"step 2: .* the last checkpoint, 2, holds the very parameters that this step began with$", [2]),
        (2, 9, 3, r"sft step 2: loss is nan; .* 2, holds the very parameters that this step began with$", [2]),
        (9, 3, 9, r"step 3: params/final_norm/scale is not finite after the update; .* 2, is intact$", [2]),
    ],
)
def test_no_checkpoint_holds_nan_and_none_is_called_intact_that_is_not(
    params, tmp_path, loss_at, params_at, refused_at, says, left
):
    config, initial = params

    def update(state, step, _):
        if step == refused_at:
            raise InputError("what the step before has made of the parameters cannot be drawn from")
        metrics = {"loss": Mean(np.nan if step == loss_at else 1.0, 1.0)}
        if step == params_at:
            state = state.replace(params=state.params | {"final_norm": {"scale": jnp.full(8, jnp.inf)}})
        return loop.StepResult(state=state, metrics=metrics, ids=["a", "b"], tokens=1.0, roofline_seconds=0.0)

    run = run_of(config, tmp_path, every_steps=2)
    with pytest.raises(loop.BadLossError, match=says):
        loop.fit(run, "sft", lambda: initial, optax.sgd(0.1), id, update, 8)
    assert steps.listed(tmp_path / "sft") == left


def test_a_step_is_prepared_before_the_one_before_has_ended_and_written_after_the_next_has_begun(params, tmp_path):
    config, initial = params
    begun, seen = [threading.Event() for _ in range(5)], []

    def prepare(step):
        begun[step].set()
        return f"batch {step}"

    def update(state, step, made):
        assert step == 4 or begun[step + 1].wait(10), "the next step is prepared once this one has ended"
        written = read_metrics(tmp_path / "sft" / "metrics.jsonl")
        seen.append((made, [row["step"] for row in written]))
        return loop.StepResult(state, {"loss": Mean(1.0, 1.0)}, ids=["a"], tokens=1.0, roofline_seconds=0.0)

    run = run_of(config, tmp_path, every_steps=3)
    summary = loop.fit(run, "sft", lambda: initial, optax.sgd(0.1), prepare, update, 5)
    # A checkpoint, as after the third step, has what was written before it.
    assert seen == [(f"batch {step}", [*range(done)]) for step, done in enumerate([0, 0, 1, 3, 3])]
    rows = read_metrics(tmp_path / "sft" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4] and summary["tokens"] == 5
    assert summary["device_idle"] == 0  # no device was given anything


def test_an_error_in_what_is_prepared_ends_the_stage_where_it_is_needed(params, tmp_path):
    config, initial = params

    def prepare(step):
        if step == 1:
            raise InputError("line 7: not a comparison")

    def update(state, step, _):
        return loop.StepResult(state, {"loss": Mean(1.0, 1.0)}, ids=["a"], tokens=1.0, roofline_seconds=0.0)

    with pytest.raises(InputError, match="line 7"):
        loop.fit(run_of(config, tmp_path, 9), "sft", lambda: initial, optax.sgd(0.1), prepare, update, 5)
    assert [row["step"] for row in read_metrics(tmp_path / "sft" / "metrics.jsonl")] == [0]


def test_a_signal_within_a_step_drops_that_step_and_saves_what_it_began_with(params, tmp_path):
    config, initial = params
    run, tried = run_of(config, tmp_path, every_steps=100), []

    def update(state, step, _):
        tried.append(step)
        if tried in ([0], [0, 0, 1, 2, 3], [0, 0, 1, 2, 3, 3]):  # at once, in the midst, and again where nothing is new
            raise distributed.StoppedError
        doubled = jax.tree.map(lambda x: 2 * x, state.params)
        metrics = {"loss": Mean(1.0, 1.0)}
        return loop.StepResult(state.replace(params=doubled), metrics, ids=["a"], tokens=1.0, roofline_seconds=0.0)

    for saved in ([], [3], [3]):
        with pytest.raises(distributed.StoppedError):
            loop.fit(run, "sft", lambda: initial, optax.sgd(0.1), id, update, 5)
        assert steps.listed(tmp_path / "sft") == saved
    summary = loop.fit(run, "sft", lambda: initial, optax.sgd(0.1), id, update, 5)
    assert summary["steps"] == summary["tokens"] == 5 and tried[-2:] == [3, 4]
    target = loop.abstract_state(run, "sft", optax.sgd(0.1))
    _, state, _ = train_state.restore_newest(target, tmp_path / "sft")
    expected = jax.tree.map(lambda x: 32 * x, initial)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state.params, expected))


def test_a_trace_holds_all_that_the_devices_do_for_its_steps(params, tmp_path, monkeypatch):
    """The loop is a step ahead of the devices: what it is told to trace has neither begun nor ended when it comes there."""
    config, initial = params
    slow, given, unfinished = jax.jit(lambda x: jax.lax.fori_loop(0, 300, lambda _, x: jnp.cos(x @ x), x)), [], []
    profiler = performance.jax.profiler

    def look(*_, **__):
        unfinished.append([step for step, result in enumerate(given) if not result.is_ready()])

    monkeypatch.setattr(profiler, "start_trace", look)
    monkeypatch.setattr(profiler, "stop_trace", look)

    def update(state, step, _):
        given.append(slow(jnp.ones((100, 100))))
        return loop.StepResult(state, {"loss": Mean(given[-1].sum(), 1.0)}, ids=["a"], tokens=1.0, roofline_seconds=0.0)

    run = run_of(config, tmp_path, every_steps=9)
    run.config.profile_steps = (1, 3)
    loop.fit(run, "sft", lambda: initial, optax.sgd(0.1), id, update, 5)
    assert len(given) == 5 and unfinished == [[], []]
