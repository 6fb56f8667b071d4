"""Which buckets are chosen: the best levels by trying all, little padding on long-tailed lengths, and when there are none."""

import itertools

import numpy as np
import pytest

from spct_jax.config import Config
from spct_jax.data.config import DataConfig
from spct_jax.training import bucket_choice, buckets
from spct_jax.training.context import Run

RNG = np.random.default_rng(0)
LIMITS = (4096, 1024)


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_levels_are_the_best_of_all(count):
    numbers = RNG.integers(1, 9, 30)
    sets = itertools.chain.from_iterable(itertools.combinations(range(1, numbers.max() + 1), k) for k in range(1, count + 1))
    least = min(
        sum(min(level for level in chosen if level >= x) for x in numbers) for chosen in sets if chosen[-1] == numbers.max()
    )
    levels, cost = bucket_choice.partition(numbers, count)
    assert cost == least and len(levels) <= count
    assert sum(min(level for level in levels if level >= x) for x in numbers) == cost


def lengths_of(rows, group_size):
    """Prompts behind a preamble of 850 tokens, and log-normal completions from 60 to 1,024, 260 in the mean."""
    prompts = 850 + np.exp(RNG.normal(np.log(150), 0.7, rows)).astype(int)
    return prompts, np.exp(RNG.normal(np.log(230), 0.5, (rows, group_size))).clip(60, 1024).astype(int).sum(1)


@pytest.mark.parametrize(
    ("group_size", "batch", "growth", "longer"), [(1, (256, 16), 1, 1), (4, (128, 8), 1.5, 1), (4, (128, 8), 1.5, 1.3)]
)
def test_little_padding_on_other_rows_than_were_seen(group_size, batch, growth, longer):
    table = bucket_choice.choose(*lengths_of(1024, group_size), group_size, 8, LIMITS, batch, growth)
    assert len(table) == 8 and table[-1] == LIMITS
    assert len({prompt for prompt, _ in table[:-1]}) == 1 and sorted(table) == list(table)
    (rows, micro_batches), tokens, computed = batch, 0, 0
    for _ in range(20):
        prompts, completions = lengths_of(rows, group_size)
        completions = (completions * longer).astype(int)
        _, chosen = buckets.arrange(prompts, completions, table, group_size, micro_batches)
        computed += rows // micro_batches * sum(buckets.slots(bucket, group_size) for bucket in chosen)
        tokens += (prompts - 1 + completions).sum()
    assert 1 - tokens / computed < 0.15


def conversations(rows):
    """Conversations of hh-rlhf's kind with two responses: 60 to 1,000 tokens in all, 230 in the mean."""
    return 12 + np.exp(RNG.normal(4.6, 0.8, rows)).astype(int), np.exp(RNG.normal(4.2, 0.7, (rows, 2))).astype(int).sum(1)


def test_where_lengths_differ_much_there_are_more_buckets_but_no_more_than_are_needed():
    prompts, completions, batch = *conversations(2048), (512, 32)
    few, enough, all_of_them = (
        bucket_choice.choose(prompts, completions, 2, count, (2048, 1024), batch) for count in (8, 24, 33)
    )
    assert len(few) == 8 and 8 < len(enough) <= 24 and enough == all_of_them

    def padding(table):
        tokens, computed = 0, 0
        for _ in range(20):
            prompts, completions = conversations(512)
            _, chosen = buckets.arrange(prompts, completions, table, 2, 32)
            computed += 16 * sum(buckets.slots(bucket, 2) for bucket in chosen)
            tokens += (prompts - 1 + completions).sum()
        return 1 - tokens / computed

    assert padding(enough) < 0.15 < padding(few)


def test_two_buckets_are_one_for_what_was_seen_and_the_limits():
    """A token of the long prompt lies with its completions, 17 slots of the 32 that the others need."""
    table = bucket_choice.choose(np.array([9, 5]), np.array([16, 30]), 2, 2, (64, 64), (4, 2))
    assert table == ((8, 16), (64, 64))


def run_of(workdir, **fields):
    data = DataConfig(max_prompt=100, max_completion=50, **fields)
    return Run(Config(data=data), workdir, dataset=None, prompter=None, model=None, layout=None, rollout_layout=None)


def test_buckets_of_a_stage_are_kept(tmp_path):
    run, asked = run_of(tmp_path, train="a.jsonl"), []

    def lengths(step):
        asked.append(step)
        return [(20, 10)] * 600

    table = bucket_choice.buckets_of(run, "sft", 1, (4, 4), lengths)
    assert asked == [0, 1, 2, 3] and table == ((24, 16), (24, 24), (100, 50))
    assert bucket_choice.buckets_of(run, "sft", 1, (4, 4), lengths) == table and asked == [0, 1, 2, 3]


def test_a_single_micro_batch_is_not_computed_at_the_limits(tmp_path):
    table = bucket_choice.buckets_of(run_of(tmp_path, train="a.jsonl"), "sft", 1, (4, 1), lambda step: [(20, 10)] * 4)
    assert table == ((24, 16), (100, 50))


@pytest.mark.parametrize("fields", [{}, {"train": "a.jsonl", "num_buckets": 1}])
def test_one_shape_for_the_toy_world_and_where_it_is_asked_for(fields, tmp_path):
    assert bucket_choice.buckets_of(run_of(tmp_path, **fields), "sft", 1, (4, 4), iter) == ()


def test_buckets_of_the_config_end_with_the_one_that_holds_everything():
    data = DataConfig(max_prompt=100, max_completion=50)
    assert bucket_choice.named(data) == ()
    data.buckets = ((40, 20), (60, 10), (90, 45))
    assert bucket_choice.named(data) == ((40, 20), (60, 10), (90, 45), (100, 50))
    assert bucket_choice.named(data, (50, 30)) == ((40, 20), (50, 10), (50, 30))
