"""The engine against the plain sampler: the same completions, whatever stands beside them and whenever they begin."""

import collections
import dataclasses
import functools
import threading
from concurrent import futures

import jax
import numpy as np
import pytest

from spct_jax import distributed, models, sampling, sharding
from spct_jax.errors import InputError
from spct_jax.models import sizes
from spct_jax.sampling import Engine, Request, SamplingParams, Shape, engine_shape, kernel
from spct_jax.sampling import engine as engine_lib
from spct_jax.sampling.engine_programs import WAITED, EngineProgram, engine_programs
from spct_jax.sampling.engine_shape import Split

CONFIG = dataclasses.replace(sizes.toy(40), num_layers=2, window=8)
SHAPE = Shape(max_prompt=24, max_new_tokens=50, rows=4, branches=3, trunks=2, prefill_rows=2, chunk=8)
PROMPTS = [[int(t) for t in np.random.default_rng(i).integers(2, 40, 1 + 5 * i % 23)] for i in range(11)]
SAMPLES = 5


@functools.cache
def params(layout):
    return jax.device_put(jax.jit(models.init, static_argnums=0)(CONFIG, jax.random.key(0)), layout.replicated)


def key_data(key):
    return np.asarray(jax.random.key_data(key))


def requests(chosen=range(len(PROMPTS)), samples=SAMPLES):
    key = jax.random.key(7)
    return [Request(i, PROMPTS[i], key_data(jax.random.fold_in(key, i)), collections.deque(range(samples))) for i in chosen]


def layout_of(devices=1):
    return sharding.make_layout(devices=jax.devices()[:devices])


def engine(shape=SHAPE, sampling=SamplingParams(1.0, (1,)), devices=1):
    layout = layout_of(devices)
    return Engine(layout, params(layout), CONFIG, shape, sampling)


def drawn(made, wanted):
    return {(f.request.tag, f.sample): (f.tokens, f.logprobs.tolist()) for f in made.run(wanted)}


def drawn_by_turns(made, wanted):
    """As a judge does, chunk by chunk."""
    for request in wanted:
        made.submit(request)
    finished = []
    while made.pending:
        made.launch()
        finished += made.collect()
    return {(f.request.tag, f.sample): (f.tokens, f.logprobs.tolist()) for f in finished}


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
    (waited,) = (seconds for event, seconds in seen if event == WAITED)
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


class DryPrograms:
    """Stands in for the engine's programs: branches end after lengths that are known beforehand, nothing is computed."""

    def __init__(self, shape, lengths):
        self._lengths, self._shape = lengths, shape
        self._left = np.zeros((shape.rows, shape.branches), int)

    def init(self):
        return None

    def trunks(self, level):
        return lambda *_: models.Trunk(layers={}, lengths=np.zeros(level.rows))

    def insert(self, *_):
        return None

    def begin(self, slots, fresh, trunk_slot, keys, sample, last):
        fresh, keys, sample = map(np.asarray, (fresh, keys, sample))
        self._left[fresh] = self._lengths[keys[..., 0], sample][fresh]

    def chunk(self, *_):
        ran, drawn = self._left > 0, np.minimum(self._left, self._shape.chunk)
        self._left -= drawn
        tokens = np.zeros((*drawn.shape, self._shape.chunk), int)
        return None, sampling.Completions(tokens, drawn, tokens.astype(np.float32)), ran & (self._left == 0)


@pytest.mark.parametrize("samples", [4, 8, 16])
def test_nine_slots_in_ten_are_busy_on_a_realistic_stream(monkeypatch, samples):
    """Completion lengths are log-normal, 60 to 1,200 tokens; each prompt has a few samples (k = 8, 16, 32 in two orders)."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(260), 0.6, (600, samples))), 60, 1200).astype(int)
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


PREAMBLE = (31, 4, 15, 9, 2, 6)
BEHIND = dataclasses.replace(SHAPE, preamble=len(PREAMBLE))


def after_preamble(chosen=range(len(PROMPTS)), samples=SAMPLES):
    """Prompts behind the preamble; some are without it, or have nothing or not even all of it before their last token."""
    plain = {0: list(PREAMBLE), 3: [*PREAMBLE[:4], 7], 6: PROMPTS[6], 9: PROMPTS[9], 10: [*PREAMBLE, 7]}
    prompts = [plain.get(i, [*PREAMBLE, *prompt[-17:]]) for i, prompt in enumerate(PROMPTS)]
    return [dataclasses.replace(request, prompt=prompts[request.tag]) for request in requests(chosen, samples)]


def behind():
    layout = layout_of(2)
    return Engine(layout, params(layout), CONFIG, BEHIND, SamplingParams(1.0, (1,)), preamble=PREAMBLE)


def test_a_preamble_computed_once_changes_no_token_and_no_bit_depends_on_company():
    got, want = drawn(behind(), after_preamble()), drawn(engine(), after_preamble())
    assert {key: tokens for key, (tokens, _) in got.items()} == {key: tokens for key, (tokens, _) in want.items()}
    for key in want:
        np.testing.assert_allclose(got[key][1], want[key][1], atol=1e-4)
    assert drawn_by_turns(behind(), reversed(after_preamble())) == got
    for i in (3, 4):
        assert drawn(behind(), after_preamble([i])) == {key: value for key, value in got.items() if key[0] == i}


STEMS = {0: [7] * 9, 1: list(range(20, 33)), 2: [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]}
FAMILIES = dataclasses.replace(
    SHAPE, max_prompt=len(PREAMBLE) + 49, preamble=len(PREAMBLE), siblings=2, prefill_rows=4, rows=4, max_new_tokens=16
)


def siblings(families, preamble=PREAMBLE):
    """Three prompts of each family behind its stem, so one more than a stem is computed for, and prompts without a stem."""
    found = []
    for f in families:
        for i in range(3):
            own = [int(t) for t in np.random.default_rng((f, i)).integers(2, 40, 3 + 5 * i)]
            key = key_data(jax.random.fold_in(jax.random.key(f), i))
            begin = [*preamble, *STEMS.get(f, [])]
            tag = f, i
            found.append(Request(tag, [*begin, *own], key, collections.deque(range(2)), stem=len(begin) if f in STEMS else 0))
    return found


def of_families(devices, shape=FAMILIES):
    layout = layout_of(devices)
    return Engine(layout, params(layout), CONFIG, shape, SamplingParams(1.0, (1,)), preamble=PREAMBLE)


@pytest.mark.parametrize("devices", [1, 2])
def test_what_siblings_have_in_common_is_computed_once_and_no_bit_depends_on_company(monkeypatch, devices):
    monkeypatch.setattr(engine_shape, "LEAST_SHARED", 6)
    made, wanted = of_families(devices), siblings([0, 1, 2, 3])
    want = drawn(of_families(devices, dataclasses.replace(FAMILIES, siblings=1)), siblings([0, 1, 2, 3]))
    got = drawn(made, wanted)
    assert {request.split.stem for request in wanted} == {0, 16} and {r.split.own for r in wanted if r.split.stem} == {16}
    assert {key: tokens for key, (tokens, _) in got.items()} == {key: tokens for key, (tokens, _) in want.items()}
    for key in want:
        np.testing.assert_allclose(got[key][1], want[key][1], atol=1e-4)
    whole, once = (sum(len(request.prompt) - 1 for request in wanted), 12 * len(PREAMBLE) + sum(map(len, STEMS.values())))
    computed = made.usage.trunk_tokens - len(PREAMBLE)
    assert devices == 2 or (computed + made.usage.shared_tokens == whole and computed <= whole - once)
    again = drawn(of_families(devices), reversed(siblings([2, 0, 3, 1])))
    assert again == got
    for alone in (siblings([1]), siblings([2])[1:2]):
        found = drawn(of_families(devices), alone)
        assert found == {key: got[key] for key in found}


def test_no_stem_leaves_its_shard():
    layout = layout_of(2)
    programs = engine_programs(layout, CONFIG, FAMILIES, SamplingParams(1.0, (1,)))
    text = programs.trunks(FAMILIES.levels(Split(len(PREAMBLE), 16, 16))[-1]).lower().compile().as_text()
    assert not [name for name in ("all-", "collective", "reduce-scatter") if name in text]


def test_a_stem_is_computed_apart_where_that_saves_a_fifth():
    shape = dataclasses.replace(SHAPE, max_prompt=700, preamble=100, siblings=2)
    whole = Split(100, 0, 599)
    assert shape.split(600, 100, 100 + 63) == whole and shape.split(600, 100, 350) == Split(100, 256, 256)
    assert shape.split(600, 100, 170) == whole  # 128 + 2 x 512 of 2 x 599
    assert shape.split(600, 0, 350) == Split(0, 384, 256) and shape.split(600, 100) == whole
    assert dataclasses.replace(shape, siblings=1).split(600, 100, 350) == whole
    with pytest.raises(InputError, match="2 rows of a prefill are not a multiple of 4 siblings"):
        dataclasses.replace(shape, siblings=4)


def test_usage_tells_what_was_computed_from_what_was_shared(monkeypatch):
    programs = DryPrograms(BEHIND, np.full((len(PROMPTS), 1), 5))
    monkeypatch.setattr(engine_lib, "engine_programs", lambda *_: programs)
    wanted, layout = after_preamble(samples=1), layout_of()
    wanted = [dataclasses.replace(request, key=np.array([request.tag, 0], np.uint32)) for request in wanted]
    made = Engine(layout, params(layout), CONFIG, BEHIND, SamplingParams(1.0, (1,)), preamble=PREAMBLE)
    assert len([*made.run(wanted)]) == len(wanted)
    behind = sum(request.split.shared > 0 for request in wanted)
    assert made.usage.prefills == len(wanted) and made.usage.shared_tokens == behind * len(PREAMBLE) and behind == 7
    assert made.usage.trunk_tokens == sum(len(request.prompt) - 1 for request in wanted) - (behind - 1) * len(PREAMBLE)


def test_a_preamble_of_another_length_than_the_shapes_is_refused():
    with pytest.raises(InputError, match="a preamble of 0 tokens for a shape that has one of 6"):
        engine(BEHIND)
    with pytest.raises(InputError, match="a preamble of 23 tokens leaves none of 24"):
        dataclasses.replace(BEHIND, preamble=23)
