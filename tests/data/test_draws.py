"""Draws: samples favour nothing, shuffled passes leave nothing out, sources of a mixture get their shares at any step."""

import collections

import numpy as np
import pytest

from spct_jax.data import draws
from spct_jax.data.draws import Shares


def test_a_sample_is_a_function_of_seed_and_stage_and_favours_no_record():
    assert draws.sample(0, "a", 5, 0).tolist() == draws.sample(0, "a", 5, 5).tolist() == [0, 1, 2, 3, 4]
    assert draws.sample(0, "a", 1000, 100).tolist() == draws.sample(0, "a", 1000, 100).tolist()
    samples = [draws.sample(seed, stage, 40, 10).tolist() for seed in range(200) for stage in ("rejection", "evaluate")]
    assert len(set(map(tuple, samples))) == len(samples)
    counts = np.bincount(np.concatenate(samples), minlength=40)
    assert 60 < counts.min() and counts.max() < 140  # 100 expected, with a standard deviation of 8.7


SOURCES = np.repeat([0, 1, 2], [700, 40, 3])
MIXED = Shares(SOURCES, (0.25, 0.7, 0.05))


def taken(first, last, shares=MIXED, size=8):
    return [i for step in range(first, last) for i in draws.order(1, "rl", len(shares.sources), step, size, shares)]


def test_every_source_has_its_share_of_the_draws_exactly_after_a_block_and_nearly_before():
    for steps, tolerance in ((draws.BLOCK // 8, 0), (100, 50)):
        counts = np.bincount(SOURCES[taken(0, steps)], minlength=3)
        assert np.abs(counts - np.multiply(MIXED.weights, steps * 8)).max() <= tolerance


def test_each_source_is_drawn_in_passes_that_leave_nothing_out():
    drawn = taken(0, 500)
    for source, size in enumerate((700, 40, 3)):
        own = [i for i in drawn if SOURCES[i] == source]
        passes = [own[start : start + size] for start in range(0, len(own) - size + 1, size)]
        assert passes and all(len(set(one)) == size for one in passes)
        assert len(passes) == 1 or passes[0] != passes[1]


def test_a_step_does_not_depend_on_the_steps_before_it():
    calm = taken(0, 3000)
    draws._permutation.cache_clear()
    draws._block.cache_clear()
    assert taken(2990, 3000) == calm[-80:]
    assert taken(0, 6, size=4) == calm[:24]
    assert draws.order(2, "rl", 743, 0, 40, MIXED) != calm[:40] != draws.order(1, "sft", 743, 0, 40, MIXED)


def test_a_source_that_no_record_is_left_of_gives_its_share_to_the_others():
    some = MIXED[np.flatnonzero(SOURCES != 1)]
    counts = collections.Counter(int(some.sources[i]) for i in taken(0, 1250, some))
    assert counts[0] == pytest.approx(10_000 * 0.25 / 0.3, abs=1) and counts[1] == 0
    rare = Shares(np.array([0, 1]), (1.0, 1e-9))
    assert {int(i) for i in taken(0, 1251, rare)} == {0, 1}


def test_a_sample_of_a_mixture_has_the_shares_of_its_sources_as_far_as_they_go():
    chosen = draws.sample(0, "rejection", 743, 100, MIXED)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    counts = np.bincount(SOURCES[chosen], minlength=3)
    assert counts[1] == 40 and counts[2] <= 3 and 15 <= counts[0] <= 35
