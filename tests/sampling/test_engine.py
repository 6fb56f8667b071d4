"""The engine against the plain sampler: the same completions, whatever stands beside them and whenever they begin."""

import collections
import dataclasses
import functools
import threading
from concurrent import futures

import jax
import numpy as np
import pytest
from small_engine import (
    CONFIG,
    PROMPTS,
    SAMPLES,
    SHAPE,
    DryPrograms,
    drawn,
    drawn_by_turns,
    engine,
    layout_of,
    params,
    requests,
)

from spct_jax import sampling, sharding
from spct_jax.errors import InputError
from spct_jax.runtime import compiling, distributed
from spct_jax.sampling import Engine, Request, SamplingParams, Shape, kernel
from spct_jax.sampling import engine as engine_lib
from spct_jax.sampling.engine_programs import EngineProgram, engine_programs


@functools.cache
def all_completions():
    return drawn(engine(), requests())


def test_completions_are_those_of_the_plain_sampler():
    for i, prompt in enumerate(PROMPTS):
        key = jax.random.fold_in(jax.random.key(7), i)
        options = {"num_samples": SAMPLES, "max_new_tokens": 50, "bucket": 24}
        out = sampling.generate(params(layout_of()), CONFIG, [prompt], key[None], **options)
        for s in range(SAMPLES):
            tokens, logprobs = all_completions()[i, s]
            length = int(out.lengths[0, s])
            assert tokens == out.tokens[0, s, :length].tolist()
            np.testing.assert_allclose(logprobs, out.logprobs[0, s, :length], atol=1e-5)


def test_no_bit_depends_on_order_company_or_refills():
    want = all_completions()
    assert drawn(engine(), requests(np.random.default_rng(0).permutation(len(PROMPTS)))) == want
    for i in (2, 6):
        alone = drawn(engine(), requests([i]))
        assert alone == {key: value for key, value in want.items() if key[0] == i}
    assert drawn_by_turns(engine(), requests()) == want
    few = drawn(engine(), requests(samples=2))
    assert few == {key: value for key, value in want.items() if key[1] < 2}


def test_no_slot_is_idle_while_prompts_wait():
    """Two trunks are enough for a row that has no more branches than a prompt has samples."""
    made, full = engine(), 0
    for request in requests():
        made.submit(request)
    while made.pending:
        made.launch()
        if made._queue:
            assert len(made._running) == made.capacity
            full += 1
        made.collect()
    assert full > 3


def test_programs_compiled_ahead_are_those_that_an_engine_calls():
    """Nothing is left to compile at the first call, and the completions are the same to the bit."""
    shape, layout, compiled = dataclasses.replace(SHAPE, rows=5, prefill_rows=3, max_prompt=23), layout_of(), []
    wanted = [i for i, prompt in enumerate(PROMPTS) if len(prompt) <= 23]
    programs = engine_programs(layout, CONFIG, shape, SamplingParams(1.0, (1,)))
    levels = shape.levels(shape.split(23))
    with futures.ThreadPoolExecutor(1) as pool:
        assert programs.compile_ahead(pool, levels)
    assert not programs.compile_ahead(pool, levels)
    programs.init()
    first = Engine(layout, params(layout), CONFIG, shape, SamplingParams(0.7, (1,)))

    def listen(event, duration, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    drawn_by_turns(first, requests(wanted, samples=1))
    ahead = drawn_by_turns(engine(shape), requests(wanted))
    jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled
    # Of as many tokens as there are: the same draw, but by programs of their own.
    assert drawn(engine(shape, SamplingParams(1.0, (1,), top_k=40)), requests(wanted)) == ahead


def test_a_call_waits_for_the_thread_that_compiles_and_says_for_how_long():
    release, seen = threading.Event(), []
    jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: seen.append((event, seconds)))
    double = EngineProgram(jax.jit(lambda x: 2 * x), jax.ShapeDtypeStruct((3,), np.float32))
    with futures.ThreadPoolExecutor(1) as pool:
        pool.submit(release.wait)
        assert double.compile_ahead(pool) and not double.compile_ahead(pool)
        threading.Timer(0.2, release.set).start()
        assert double(np.ones(3, np.float32)).tolist() == [2, 2, 2]
    (waited,) = (seconds for event, seconds in seen if event == compiling.WAITED)
    assert waited > 0.1


def test_a_program_whose_compilation_was_dropped_is_compiled_when_it_is_called():
    release, pool = threading.Event(), futures.ThreadPoolExecutor(1)
    double = EngineProgram(jax.jit(lambda x: 2 * x), jax.ShapeDtypeStruct((3,), np.float32))
    pool.submit(release.wait)
    assert double.compile_ahead(pool)
    pool.shutdown(wait=False, cancel_futures=True)
    assert double(np.ones(3, np.float32)).tolist() == [2, 2, 2]
    release.set()


@pytest.mark.parametrize("devices", [1, 2])
def test_of_groups_begun_together_no_bit_depends_on_the_others(devices):
    """Prompt i stands in row i, also where there are fewer prompts than rows, and in an engine that has drawn before."""
    made = engine(Shape.of_groups(24, 50, 4, SAMPLES), devices=devices)
    want = drawn(made, requests(range(4)))
    assert drawn(made, requests(range(4))) == want
    assert drawn(made, requests(range(3))) == {key: value for key, value in want.items() if key[0] < 3}
    others = [dataclasses.replace(request, prompt=[0]) if request.tag != 2 else request for request in requests(range(4))]
    assert {key: value for key, value in drawn(made, others).items() if key[0] == 2} == {
        key: value for key, value in want.items() if key[0] == 2
    }


def test_a_chunk_stops_when_every_branch_has_ended(monkeypatch):
    steps, sample = [], kernel.sample_token

    def counted(logits, keys, positions, sampling):
        jax.debug.callback(lambda t: steps.append(int(t)), positions.max())
        return sample(logits, keys, positions, sampling)

    monkeypatch.setattr(kernel, "sample_token", counted)
    made = engine(Shape.of_groups(24, 23, 3, 4), SamplingParams(1.0, tuple(range(20))))
    longest = max(len(f.tokens) for f in made.run(requests(range(3), samples=4)))
    jax.effects_barrier()
    assert max(steps) + 1 == longest < 23


def test_rows_are_split_over_devices():
    got, want = drawn(engine(devices=2), requests()), all_completions()
    assert got.keys() == want.keys()
    for key in want:
        assert got[key][0] == want[key][0]
        np.testing.assert_allclose(got[key][1], want[key][1], atol=1e-4)
    with pytest.raises(InputError, match="cannot be split over 2 devices"):
        engine(dataclasses.replace(SHAPE, rows=3), devices=2)


def test_no_bit_depends_on_the_shard_and_no_trunk_leaves_it():
    made = engine(devices=2)
    want = drawn(made, requests())
    assert drawn(engine(devices=2), requests(reversed(range(11)))) == want
    text = made._programs.insert.lower().compile().as_text()
    assert not [name for name in ("all-", "collective", "reduce-scatter") if name in text]


@pytest.mark.parametrize("chunk", [0, 12, 64])
def test_a_chunk_that_does_not_divide_a_block_of_the_past_is_refused(chunk):
    with pytest.raises(InputError, match=f"chunk is {chunk}; it must divide 32"):
        dataclasses.replace(SHAPE, chunk=chunk)


@pytest.mark.parametrize("between", [[], range(8)])
def test_a_request_that_comes_again_finds_its_trunk_unless_others_took_the_place(between):
    shape = dataclasses.replace(SHAPE, rows=1)
    made = engine(shape)
    (request,) = requests([4], samples=2)
    first = [*made.run([request])]
    assert len([*made.run(requests(between, samples=1))]) == len(between)
    assert sorted(f.sample for f in first) == [0, 1] and made.usage.prefills == 1 + len(between)
    request.waiting.extend(range(2, SAMPLES))
    rest = [*made.run([request])]
    assert made.usage.prefills == 1 + len(between) + bool(between)
    got = {(4, f.sample): (f.tokens, f.logprobs.tolist()) for f in first + rest}
    assert got == drawn(engine(shape), requests([4]))


def test_of_a_request_with_nothing_to_draw_no_trunk_is_computed_and_it_may_come_again(monkeypatch):
    shape = dataclasses.replace(SHAPE, rows=2, branches=1, trunks=1, prefill_rows=4)
    programs = DryPrograms(shape, np.array([[100], [5], [5], [5]]))
    monkeypatch.setattr(engine_lib, "engine_programs", lambda *_: programs)
    made = engine(shape, devices=2)
    long, short, empty, last = (Request(i, [3], np.array([i, 0], np.uint32), collections.deque()) for i in range(4))
    for request in (long, short, last):
        request.waiting.append(0)
    tags = []

    def launch():
        made.launch()
        tags.extend(f.request.tag for f in made.collect())

    for request in (long, short, empty):
        made.submit(request)
    launch()
    made.submit(last)
    launch()
    assert tags == [1, 3] and made.usage.prefills == 3
    empty.waiting.append(0)
    made.submit(empty)
    launch()
    assert tags == [1, 3, 2] and made.pending == 1


@pytest.mark.parametrize("samples", [4, 8, 16])
def test_nine_slots_in_ten_are_busy_on_a_realistic_stream(monkeypatch, samples):
    """Completion lengths are log-normal, 60 to 1,200 tokens; each prompt has a few samples (k = 8, 16, 32 in two orders)."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(260), 0.6, (300, samples))), 60, 1200).astype(int)
    shape = Shape(max_prompt=24, max_new_tokens=1200, rows=16)
    monkeypatch.setattr(engine_lib, "engine_programs", lambda *_: DryPrograms(shape, lengths))
    made = engine(shape)
    wanted = [Request(i, [3], np.array([i, 0], np.uint32), collections.deque(range(samples))) for i in range(len(lengths))]
    for request in wanted:
        made.submit(request)
    finished = []
    while any(
        request.waiting for request in wanted
    ):  # the share of a stream, not of its end, when there is nothing left to fill slots with
        made.launch()
        finished += made.collect()
    assert made.usage.useful_slots >= 0.9
    while made.pending:
        made.launch()
        finished += made.collect()
    assert {(f.request.tag, f.sample): len(f.tokens) for f in finished} == {
        (i, s): lengths[i, s] for i in range(len(lengths)) for s in range(samples)
    }


@pytest.mark.parametrize("filled", [True, False])
def test_a_signal_is_seen_when_the_next_chunk_is_done(monkeypatch, filled):
    """Also while no sample waits any more, and the next chunk is begun before it is known what ended in this one."""
    shape, begun, preemption = dataclasses.replace(SHAPE, max_new_tokens=500), [], distributed.Preemption()
    programs = DryPrograms(shape, np.full((len(PROMPTS), SAMPLES), 500))

    def chunk(*arguments):
        begun.append(arguments)
        if len(begun) == 5:
            preemption._asked = True
        return DryPrograms.chunk(programs, *arguments)

    programs.chunk = chunk
    monkeypatch.setattr(engine_lib, "engine_programs", lambda *_: programs)
    monkeypatch.setattr(distributed, "PREEMPTION", preemption)
    wanted = [dataclasses.replace(r, key=np.array([r.tag, 0], np.uint32)) for r in requests(range(11 if filled else 2))]
    with pytest.raises(distributed.StoppedError):
        list(engine(shape).run(wanted))
    assert len(begun) == 5


@pytest.mark.parametrize("local", [True, False])
def test_on_devices_of_its_own_a_process_draws_without_asking_others(monkeypatch, local):
    """The others may draw more chunks, or fewer; who waited for their answer would wait for ever."""
    asked = []
    monkeypatch.setattr(distributed, "several", lambda: True)
    monkeypatch.setattr(distributed, "begin_any", lambda value: asked.append(value) or (lambda: value))
    monkeypatch.setattr(sharding.Layout, "is_local", local)
    monkeypatch.setattr(engine_lib, "engine_programs", lambda *_: DryPrograms(SHAPE, np.full((len(PROMPTS), SAMPLES), 9)))
    wanted = [dataclasses.replace(r, key=np.array([r.tag, 0], np.uint32)) for r in requests(range(2))]
    assert len([*engine().run(wanted)]) == 2 * SAMPLES and bool(asked) is not local


@pytest.mark.parametrize("devices", [1, 2])
def test_nine_slots_in_ten_are_busy_in_a_whole_draw_of_twenty_waves(monkeypatch, devices):
    """A step of RL to its end: 128 prompts with four completions; lengths are log-normal, 60 to 1,024, 260 in the mean."""
    lengths = np.clip(np.exp(np.random.default_rng(0).normal(np.log(230), 0.5, (128, 4))), 60, 1024).astype(int)
    shape = Shape(max_prompt=24, max_new_tokens=1024, rows=6)
    monkeypatch.setattr(engine_lib, "engine_programs", lambda *_: DryPrograms(shape, lengths))
    made, keys = engine(shape, devices=devices), np.array([[i, 0] for i in range(128)], np.uint32)
    wanted = [Request(i, [3], keys[i], collections.deque(range(4))) for i in range(128)]
    assert {(f.request.tag, f.sample): len(f.tokens) for f in made.run(wanted)} == dict(np.ndenumerate(lengths))
    assert made.usage.useful_slots >= 0.9 and made.usage.tokens == lengths.sum()


def test_a_short_queue_is_spread_over_the_rows():
    made = engine()
    assert len([*made.run(requests([3], samples=12))]) == 12
    usage = made.usage
    assert usage.prefills > 1  # one row of three branches would have taken four times as long
    assert usage.trunk_tokens == usage.prefills * (len(PROMPTS[3]) - 1) <= usage.trunk_slots
    computed = usage.trunk_slots + usage.slot_steps
    assert usage.padding == pytest.approx(1 - (usage.trunk_tokens + usage.tokens) / computed) and 0 < usage.padding < 1
    assert drawn(made, requests()) == all_completions()


def test_a_prompt_longer_than_the_shape_is_refused():
    with pytest.raises(InputError, match="allowed: 1 to 24"):
        engine().submit(dataclasses.replace(requests([0])[0], prompt=[3] * 25))


def test_truncation_keeps_the_likeliest_tokens():
    free, greedy = all_completions(), drawn(engine(sampling=SamplingParams(0.0, (1,))), requests())
    assert {k: v[0] for k, v in drawn(engine(sampling=SamplingParams(1.0, (1,), top_k=1)), requests()).items()} == {
        k: v[0] for k, v in greedy.items()
    }
    assert drawn(engine(sampling=SamplingParams(1.0, (1,), top_k=40, top_p=1.0)), requests()) == free
    with pytest.raises(InputError, match="top_p"):
        engine(sampling=SamplingParams(1.0, (1,), top_p=0.0))


def test_no_prompts_are_read_before_those_before_them_have_been(monkeypatch):
    """Else as many programs would be under way at once as there are batches of prompts in all rows."""
    trunks = []

    def counting(*arguments):
        programs = engine_programs(*arguments)

        def prefill(level, *arguments):
            assert not trunks or all(x.is_ready() for x in jax.tree.leaves(trunks[-1]))
            trunks.append(programs.trunks(level)(*arguments))
            return trunks[-1]

        return dataclasses.replace(programs, trunks=lambda level: functools.partial(prefill, level))

    monkeypatch.setattr(engine_lib, "engine_programs", counting)
    made = engine(dataclasses.replace(SHAPE, rows=32, branches=1, trunks=1), devices=2)
    assert len([*made.run(requests([*range(11)] * 3, samples=1))]) == 33 and len(trunks) > 10
