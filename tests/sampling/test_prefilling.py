"""What prompts begin with, computed once: the same completions as without, whatever stands beside them."""

import collections
import dataclasses

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
    key_data,
    layout_of,
    params,
    requests,
)

from spct_jax.errors import InputError
from spct_jax.sampling import Engine, Request, SamplingParams, engine_shape
from spct_jax.sampling import engine as engine_lib
from spct_jax.sampling.engine_programs import engine_programs
from spct_jax.sampling.engine_shape import Split

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
