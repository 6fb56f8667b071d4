"""Prompts of a comparison: in every order, and how long they can be."""

import dataclasses

import pytest
from small_judge import OPTIONS, Prompter, comparisons, judge

from spct_jax.errors import InputError
from spct_jax.grm import orders
from spct_jax.judging import tasks
from spct_jax.judging.options import Options
from spct_jax.judging.verdicts import Sample


def uneven():
    """A comparison whose prompt is longer the other way round: white space at the end is trimmed."""
    shown = [dataclasses.replace(comparisons()[0], id=str(i), responses=("wifi" + "\n" * 9, "parking")) for i in range(9)]
    return next(c for c in shown if orders.sample_order(2, "balanced", 0, c.id, 0) == (1, 0))


@pytest.mark.parametrize("change", [{}, {"order": "random"}, {"adaptive": 0.3}, {"mode": "choice"}])
def test_the_shape_of_a_comparison_is_that_of_its_longest_order_whether_or_not_it_is_drawn(change):
    models = judge().models
    for k in (1, 2):
        made = tasks.make_prompts(uneven(), models, Options(k=k, **change).for_model(models.policy.config))
        prompter = models.policy.prompter
        encode = prompter.encode_choice if "mode" in change else prompter.encode
        assert made.longest == len(encode(uneven(), (0, 1))) > len(encode(uneven(), (1, 0)))
    options = {"k": 1, "max_prompt": made.longest - 1, "max_new_tokens": 4} | change
    (outcome,) = judge().stream([uneven()], **options)
    assert isinstance(outcome, InputError)


def test_a_comparison_that_is_too_long_by_its_characters_is_not_tokenised(monkeypatch):
    long = dataclasses.replace(comparisons()[0], responses=("<bos>" * 100_000, "wifi"))
    monkeypatch.setattr(Prompter, "encode", None)
    (outcome,) = judge().stream([long], **OPTIONS, max_prompt=256)
    assert str(outcome) == "prompt longer than the context (more than 256 tokens)"


@pytest.mark.parametrize("mode", ["scores", "token_prob"])
def test_votes_that_are_no_integers_tie_in_whatever_order_they_are_added(mode):
    """Decimals that a lenient template reads, and probabilities."""
    scores = [(1.1, 1.3), (1.2, 1.2), (1.3, 1.1)]
    assert 1.1 + 1.2 + 1.3 != 1.3 + 1.2 + 1.1
    samples = {number: Sample((0, 1), pair, None, "x") for number, pair in enumerate(scores)}
    comparison = dataclasses.replace(comparisons()[0], responses=("wifi", "parking"))
    verdict = tasks.vote(tasks.Task(comparison, tasks.NO_PROMPTS, planned=3, samples=samples), Options(k=3, mode=mode))
    assert (verdict.scores, verdict.best, verdict.tied) == ((3.6, 3.6), None, (0, 1))
