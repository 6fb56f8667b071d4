"""An update in micro-batches is the update at once, is not begun where it is told to stop, and is compiled for at first."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sharded

from spct_jax import sharding
from spct_jax.checkpoints import train_state
from spct_jax.runtime import distributed
from spct_jax.training import accumulation, buckets, metrics, micro_batches, performance
from spct_jax.training.micro_batches import Batch

ALONE = sharding.make_layout(devices=jax.devices()[:1])


step_of = functools.partial(sharded.step_of, layout=ALONE)


def state_of(stage):
    params = jax.device_put(sharded.params_of(stage), ALONE.params(sharded.params_of(stage)))
    return train_state.make_state(ALONE, params, sharded.watched())


def in_buckets(stage, preamble=()):
    """A stage's batches on the device, each in an order for four micro-batches."""
    parts = [sharded.in_buckets(rows, preamble) for rows in sharded.rows_of(stage)]
    return [dataclasses.replace(part, rows=jax.device_put(part.rows)) for part in parts]


@pytest.mark.parametrize(
    ("stage", "preamble"),
    [("rl", ()), ("rl", sharded.PREAMBLE), ("sft", sharded.PREAMBLE), ("meta_rm", sharded.PREAMBLE)],
    ids=["rl", "rl, preamble", "sft, preamble", "meta_rm, preamble"],
)
def test_a_step_in_micro_batches_is_the_step_at_once(stage, preamble):
    """Gradients, parameters and Adam's moments, metrics, and what the loss gives for every row; RL in buckets and at one.

    So it is where half of the prompts continue a preamble that is computed once, in the same micro-batches as the others, and
    with RL's in one program.
    """
    given, parts = sharded.given_of(stage), in_buckets(stage, preamble)
    complete = [Batch(sharded.without_preamble(part.rows), [sharded.WHOLE]) for part in parts]
    want, expected, values = step_of(stage)(state_of(stage), complete, *given)
    expected = sharded.totals(expected)
    assert all(len({*part.buckets}) > 1 for part in parts)
    step = step_of(stage, preamble=preamble)
    at_one, in_one = ([Batch(part.rows, chosen) for part in parts] for chosen in ([sharded.WHOLE] * 4, [sharded.SHORT]))
    # SFT's second batch has one completion a row, beside which there is less room for the rest of a prompt.
    short = [Batch(part.rows, [bucket] * 4) for part, bucket in zip(parts, (sharded.SHORT, sharded.WHOLE), strict=False)]
    for chosen in (short,) if stage != "rl" else (in_one,) if preamble else (at_one, parts):
        got, found, seen = step(state_of(stage), chosen, *given)
        assert sharded.worst(got, want) < 1e-5
        found = sharded.totals(found)
        np.testing.assert_allclose([found[name] for name in expected], [*expected.values()], rtol=1e-5, atol=1e-6)
        if stage == "rl":
            inside = np.arange(sharded.T) < np.asarray(parts[0].rows.groups.lengths)[..., None]
            np.testing.assert_allclose(np.asarray(seen[0])[inside], np.asarray(values[0])[inside], atol=1e-5)


def test_slots_that_are_computed_are_those_of_the_buckets():
    (part,) = in_buckets("rl")
    _, found, _ = step_of("rl").gradients(state_of("rl").params, [part], *sharded.given_of("rl"))
    groups = part.rows.groups
    computed = sum(sharded.B // 4 * buckets.slots(bucket, sharded.G) for bucket in part.buckets)
    tokens = float(groups.trunk_lengths.sum() + groups.lengths.sum())
    assert len({*part.buckets}) > 1 and metrics.compute(found)["padding"] == pytest.approx(1 - tokens / computed)


def test_told_to_stop_between_micro_batches_a_step_leaves_the_state_and_can_be_made_again(monkeypatch):
    step, state, (part,), begun = step_of("rl"), state_of("rl"), in_buckets("rl"), []
    before, given, in_turn = jax.device_get(state), sharded.given_of("rl"), micro_batches.in_turn
    preemption = distributed.Preemption()

    def told(compute, batches, stoppable):
        for found in in_turn(compute, batches, stoppable):
            begun.append(found)
            preemption._asked = len(begun) == 2
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(distributed, "PREEMPTION", preemption)
        patch.setattr(micro_batches, "in_turn", told)
        with pytest.raises(distributed.StoppedError):
            step(state, [part], *given)
        assert len(begun) == 2 and jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state, before))
        preemption._asked = True
        step(state_of("rl"), [part], *given, stoppable=False)
    got, _, _ = step(state, [part], *given)
    want, _, _ = step(state_of("rl"), [part], *given)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), got, want))


def test_a_bucket_that_comes_up_later_is_compiled_for_at_first():
    """Of updates after the first of a rollout, too: they are other programs, whose rows have old log-probabilities."""

    def loss(params, shared, rows, total):
        lost = (params * rows["new"]).sum() if rows["old"] is None else (params * (rows["new"] - rows["old"])).sum()
        return lost / total, ({"loss": metrics.Mean(lost, 1.0)}, None)

    x, table = ALONE.split(np.arange(8, dtype=np.float32).reshape(4, 2)), [(1, 1), (2, 1)]
    first, second = {"new": x, "old": None}, {"new": x, "old": x}
    for count, updates in ((4, [second]), (1, [first, second])):
        states = [train_state.make_state(ALONE, jnp.ones(2), optax.sgd(1.0)) for _ in range(2 * len(updates))]
        step = accumulation.Step(ALONE, states[0], optax.sgd(1.0), loss, lambda rows: jnp.float32(len(rows["new"])))
        for rows in updates:
            step(states.pop(), [Batch(rows, table[:1] * count, table)])
        watch = performance.Stopwatch()
        for rows in updates:
            jax.block_until_ready(step(states.pop(), [Batch(rows, table[1:] * count, table)]))
        assert watch.read()["compile_seconds"] == 0, count


def test_on_cpus_layers_are_not_all_computed_again_before_the_backward_pass_of_the_last():
    """As they are in XLA's own order."""
    rows, wide = 64, 4096

    @jax.checkpoint
    def layer(x, matrix):
        return x + jax.nn.gelu(x @ matrix) @ matrix.T

    def loss(params, shared, batch, total):
        return functools.reduce(layer, params, batch).sum() / total, ({}, None)

    params = [jax.ShapeDtypeStruct((8, wide), np.float32)] * 6
    state = train_state.abstract_state(ALONE, params, optax.sgd(1.0))
    step = accumulation.Step(ALONE, state, optax.sgd(1.0), loss, lambda batch: jnp.float32(len(batch)))
    (part,) = step.lower(state, [Batch(jax.ShapeDtypeStruct((rows, 8), np.float32), [(1, 1)])])
    concurrent = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_CONCURRENCY_OPTIMIZED"}
    ours, theirs = (part.program.compile(options).memory_analysis() for options in (None, concurrent))
    assert ours.temp_size_in_bytes < 0.6 * theirs.temp_size_in_bytes


def test_two_batches_of_three_shapes_each_are_not_compiled_in_all_nine_pairs():
    """Of two shapes each they are, since that is no more programs than shapes."""

    def loss(params, shared, batch, total):
        return (params * batch).sum() / total, ({"loss": metrics.Mean(batch.sum(), 1.0)}, None)

    rows, table = np.arange(8, dtype=np.float32).reshape(4, 2), [(1, 1), (2, 1), (3, 1)]
    state = train_state.make_state(ALONE, jnp.ones(2), optax.sgd(1.0))
    step = accumulation.Step(ALONE, state, optax.sgd(1.0), loss, lambda batch: jnp.float32(len(batch)))
    for count, programs in ((2, 2 * 2), (3, 3 + 3 + 2)):
        batches = [Batch(ALONE.split(rows), table[:1], table[:count])] * 2
        assert len([*step.lower(state, batches)]) == programs
    state, values, _ = step(state, batches)
    assert state.params.tolist() == [1 - 3, 1 - 4] and metrics.compute(values)["loss"] == 28
