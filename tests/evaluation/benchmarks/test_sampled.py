"""Conflict pairs and best of K, against a slow reference."""

import itertools

import by_hand
import numpy as np
import pytest

from spct_jax.errors import InputError
from spct_jax.evaluation import bootstrap, figures
from spct_jax.evaluation.benchmarks import catalogue, sampled
from spct_jax.evaluation.benchmarks.base import Answer, Item


def test_best_of_k_is_the_mean_over_all_draws():
    rewards, truth = [1, 3, 3, 2, 3, 0], [1, 0, 1, 1, 0, 0]
    found = sampled.expected_truth(rewards, truth)
    for k in range(1, 7):
        credits = []
        for drawn in itertools.combinations(range(6), k):
            top = max(rewards[index] for index in drawn)
            credits.append(np.mean([truth[index] for index in drawn if rewards[index] == top]))
        assert found[k - 1] == pytest.approx(np.mean(credits))
    assert sampled.expected_truth(None, truth) == pytest.approx([1 / 2] * 6)
    assert len(sampled.expected_truth(np.arange(32.0), [0, 1] * 16)) == 32


def test_pairs_are_turned_so_that_the_right_one_comes_first():
    assert sampled.winners_first([1, 0, 1], [[0, 1], [1, 2]]) == ((0, 1), (2, 1))
    for pairs, message in [([[0, 2]], "both right"), ([[0, 3]], "not of two of 3"), ([[0]], "not of two of 3")]:
        with pytest.raises(InputError, match=message):
            sampled.winners_first([1, 0, 1], pairs)


def answer(*scores, truth=(1, 0, 0), pairs=((0, 1), (0, 2)), subset="a"):
    label = {"scores": list(truth), "pairs": list(pairs)}
    return by_hand.scored(None, scores or None, n=3, subset=subset, label=label, pairs=pairs)


def test_accuracy_counts_pairs_and_best_of_k_prompts():
    # Won and tied; lost twice; nothing read. A pair that is there twice counts twice.
    answers = [answer(5, 3, 5), answer(1, 2, 3), answer(), answer(9, 1, 1, pairs=((0, 1), (0, 1)), subset="b")]
    pairs, prompts = sampled.blocks(answers, ("a", "b"))
    assert pairs.columns["official"].tolist() == [1, 0, 0, 0, 0, 0, 1, 1]
    assert pairs.columns["paper"].tolist() == [1, 1 / 2, 0, 0, 1 / 2, 1 / 2, 1, 1]
    assert pairs.aggregates["Overall"] == {"a": 1 / 2, "b": 1 / 2} and pairs.aggregates["all pairs"] == {"a": 3 / 4, "b": 1 / 4}
    assert prompts.columns["end_score"].tolist() == pytest.approx([1 / 2, 0, 1 / 3, 1])
    assert prompts.columns["best_of_1"].tolist() == pytest.approx([1 / 3] * 4) and "best_of_4" not in prompts.columns
    highest = {statistic.aggregate: statistic.value(np.concatenate(statistic.rows)) for statistic in prompts.statistics}
    best_of_two = [(1 + 1 / 2 + 0) / 3, 0, 1 / 3]  # of the first three prompts
    curve = [1 / 3, np.mean(best_of_two), np.mean([1 / 2, 0, 1 / 3])]
    assert highest == pytest.approx({"a": max(curve), "b": 1, "Overall": (max(curve) + 1) / 2})


def test_intervals_are_over_prompts_and_not_over_their_pairs():
    right = np.random.default_rng(0).random(200) < 0.6
    label = {"scores": [1, 1, 0, 0], "pairs": [(i, j) for i in (0, 1) for j in (2, 3)]}
    rows = [(9, 9, 1, 1) if won else (1, 1, 9, 9) for won in right]
    answers = [by_hand.scored(None, row, n=4, subset="GSM8K", label=label, pairs=label["pairs"]) for row in rows]
    figure = figures.compute(catalogue.get("gsm8k_pairs"), answers).table["all pairs"]["paper"]
    # All pairs of a prompt are won or lost together, so four of them say no more than one.
    assert figure.value == pytest.approx(right.mean())
    assert (figure.low, figure.high) == pytest.approx(bootstrap.interval(right), abs=0.011)
    # Of prompts with different numbers of pairs the mean is that of all pairs drawn.
    values, groups = np.repeat([0.0, 1.0, 1.0], [1, 3, 2]), np.repeat([7, 5, 6], [1, 3, 2])
    means = bootstrap.resampled_means_of_groups(values, groups, np.random.default_rng(0), 4000)
    possible = {
        sum(one[0] for one in drawn) / sum(one[1] for one in drawn)
        for drawn in itertools.product([(0, 1), (3, 3), (2, 2)], repeat=3)
    }
    assert {round(mean, 9) for mean in means} == {round(mean, 9) for mean in possible}


def test_what_a_label_must_say():
    item = sampled.complete(Item("x", 3, subset="a", label={"scores": [0, 1, 0], "pairs": [[0, 1]]}))
    assert item.pairs == ((1, 0),) and item.best is None
    assert sampled.complete(Item("x", 2, best=1)).best == 1
    for bad, message in [
        (Item("x", 3), "no 'label' of"),
        (Item("x", 3, label={"scores": [1, 0], "pairs": []}), "scores 2 of 3"),
        (Item("x", 3, label={"scores": [1, 0, 0]}), "no 'label' of"),
        (Item("x", 3, label={"scores": [1, None, 0], "pairs": []}), "no 'label' of"),
        (Item("x", 3, label={"scores": [1, 0, 0], "pairs": [3]}), "not of two of 3 responses \\(3\\)"),
        (Item("x", 2), "no 'best'"),
    ]:
        with pytest.raises(InputError, match=message):
            sampled.complete(bad)


def test_items_of_two_responses_are_pairs_by_themselves():
    (block,) = sampled.blocks([Answer(Item("x", 2, best=1, subset="a"), by_hand.scored(1, (1, 2)).votes)])
    assert block.columns["official"].tolist() == [1]
