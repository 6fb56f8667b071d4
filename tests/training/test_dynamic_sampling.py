"""Dynamic sampling against a walk over the window prompt by prompt, and what processes that share a draw make of it."""

import dataclasses

import numpy as np
import pod_of_threads
import pytest
from stand_ins import KeyedEngine

from spct_jax import pipeline
from spct_jax.sampling import Shape, Usage
from spct_jax.training import dynamic_sampling, group_rewards, parameters, rl, rl_rollouts, rollout

RNG = np.random.default_rng(0)


def slow_choice(rewards, batch_size):
    """One group after the other until the batch is full; then, if it is not, the groups that were passed over."""
    learned, passed = [], []
    for number, group in enumerate(rewards):
        if len(learned) < batch_size:
            (learned if len(set(group.tolist())) > 1 else passed).append(number)
    return sorted(learned + passed[: batch_size - len(learned)])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9, 1.0])
def test_what_is_learned_from_is_what_a_walk_over_the_prompts_finds_however_many_are_drawn_together(share):
    for batch_size, batches, group_size in ((1, 1, 2), (1, 5, 4), (4, 3, 32), (32, 1, 4), (32, 8, 4), (7, 64, 3)):
        most = batch_size * batches
        rewards = np.where(RNG.random((most, group_size)) < 0.5, 1.0, -1.0)
        rewards[:, :2] = np.where(RNG.random((most, 1)) < share, [[1.0, -1.0]], rewards[:, :1])
        rewards[RNG.random(most) >= share] = 1.0
        signal = group_rewards.with_signal(rewards)
        drawn, draws = 0, 0
        count = batch_size
        while count:
            drawn, draws = drawn + count, draws + 1
            found = dynamic_sampling.chosen(signal[:drawn], batch_size)
            count = dynamic_sampling.next_draw(signal[:drawn], batch_size, most)
            assert count == 0 or signal[:drawn].sum() < batch_size
        assert batch_size <= drawn <= most and (drawn == most or signal[:drawn].sum() >= batch_size)
        assert found.tolist() == slow_choice(rewards[:drawn], batch_size) and len(found) == batch_size
        if signal.sum() >= batch_size:
            assert found.tolist() == slow_choice(rewards, batch_size)
        if batches == 1:
            assert found.tolist() == list(range(batch_size))
        assert draws <= 2 + 2 * np.log2(most)


def test_few_draws_and_few_groups_too_many():
    drawn, draws = [], []
    for _ in range(200):
        signal = RNG.random(32 * 16) < 0.3
        count, total, rounds = 32, 0, 0
        while count:
            total, rounds = total + count, rounds + 1
            count = dynamic_sampling.next_draw(signal[:total], 32, 32 * 16)
        drawn.append(total), draws.append(rounds)
    assert np.mean(drawn) < 1.3 * 32 / 0.3 and np.mean(draws) < 3


def by_tokens(rollouts, reward=None):
    """Rewards that differ in half of the groups of two; an untrained model earns -1 everywhere."""
    return np.array([[float(c.sum() % 2) for c in r.completions] for r in rollouts])


def test_one_process_and_two_draw_the_same_prompts_in_order_and_none_twice_alike(micro_config, tmp_path, monkeypatch):
    micro_config.rl = dataclasses.replace(micro_config.rl, batch_size=24, group_size=2, dynamic_sampling=8)
    run = pipeline.prepare(micro_config, tmp_path)
    monkeypatch.setattr(rollout, "Engine", KeyedEngine)
    monkeypatch.setattr(parameters, "for_sampling", lambda run, params: params)
    monkeypatch.setattr(group_rewards, "rewards_of", by_tokens)
    numbers = rl.prompts_of(run, np.arange(len(run.dataset.train)), 3)
    assert len(numbers) == 24 * 8 and len(set(numbers)) == 48
    shape = Shape.of_groups(run.limits.max_prompt, run.limits.max_completion, 24, 2)

    def process(_):
        return rl_rollouts.roll_out(run, None, numbers, 3, shape, Usage())

    alone = process(0)
    drawn = len(alone.rollouts)
    signal = group_rewards.with_signal(by_tokens(alone.rollouts))
    assert 48 <= drawn < 24 * 8 and signal.sum() >= 24, "it begins with as many, and some of 48 come up again"
    assert [r.id for r in alone.rollouts] == [run.dataset.train[number].id for number in numbers[:drawn]]
    tokens = [[c.tolist() for c in r.completions] for r in alone.rollouts]
    assert len({str(c) for group in tokens for c in group}) == 2 * drawn
    assert alone.sampler_logprobs.shape[0] == drawn
    for other in pod_of_threads.run(monkeypatch, 2, process):
        assert [(r.id, r.order) for r in other.rollouts] == [(r.id, r.order) for r in alone.rollouts]
        assert [[c.tolist() for c in r.completions] for r in other.rollouts] == tokens
        assert np.array_equal(other.sampler_logprobs, alone.sampler_logprobs)
    logged = rollout.read(rl_rollouts.path_of(run, 3))
    assert [r.id for r in logged] == [r.id for r in alone.rollouts]
