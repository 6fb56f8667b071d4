"""Verdicts of a judge: in order, the same in any company, voted as they should be."""

import dataclasses

import jax
import numpy as np
import pytest
from small_judge import OPTIONS, changed, comparisons, judge, tokenizer, verdicts

from spct_jax.errors import InputError
from spct_jax.grm import orders, voting
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter as RealPrompter
from spct_jax.judging import scheduler
from spct_jax.judging.judge import Judge
from spct_jax.reward_models.base import RewardModel, Scored
from spct_jax.sharding.config import MeshConfig


def test_verdicts_come_in_order_and_add_up():
    assert [v.id for v in verdicts()] == [c.id for c in comparisons()]
    for comparison, verdict in zip(comparisons(), verdicts(), strict=True):
        scores = [s.scores for s in verdict.samples]
        assert verdict.k == len(scores) == 6 and verdict.valid == sum(s is not None for s in scores)
        assert verdict.scores == voting.sum_vote(scores, comparison.n)
        top = voting.winners(verdict.scores)
        assert (verdict.best, verdict.tied) == ((top[0], ()) if len(top) == 1 else (None, top))
        shown = [s.order for s in verdict.samples]
        assert shown == [orders.sample_order(comparison.n, "balanced", 0, comparison.id, i) for i in range(6)]
        assert all(s.meta is None for s in verdict.samples)


def test_a_judge_is_a_reward_model():
    assert isinstance(judge(), RewardModel) and all(isinstance(verdict, Scored) for verdict in verdicts())


def test_a_verdict_is_the_same_alone_in_company_and_in_any_order():
    want = {v.id: v for v in verdicts()}
    mixed = [comparisons()[i] for i in np.random.default_rng(1).permutation(24)]
    assert judge().score(mixed, **OPTIONS) == [want[c.id] for c in mixed]
    assert judge().score(mixed[:1], **OPTIONS) == [want[mixed[0].id]]
    assert judge().score(iter(mixed[:7]), **OPTIONS) == [want[c.id] for c in mixed[:7]]


def test_fewer_samples_are_a_prefix():
    for few, many in zip(verdicts(k=4), verdicts(), strict=True):
        assert [(s.order, s.text) for s in few.samples] == [(s.order, s.text) for s in many.samples[:4]]


def test_other_seeds_and_random_orders_are_others():
    assert verdicts(seed=1) != verdicts()
    for comparison, verdict in zip(comparisons(), verdicts(order="random"), strict=True):
        assert [s.order for s in verdict.samples] == [orders.random_order(comparison.n, 0, comparison.id, i) for i in range(6)]


def test_sixteen_responses_stand_once_at_every_position_over_sixteen_samples():
    many = dataclasses.replace(comparisons()[0], id="many", responses=tuple(f"Alba has wifi, tea {i}." for i in range(16)))
    (verdict,) = judge().score([many], **OPTIONS | {"k": 16, "max_new_tokens": 8})
    assert {len(s.scores) for s in verdict.samples if s.scores} == {16} and len(verdict.scores) == 16
    for position in range(16):
        assert sorted(s.order[position] for s in verdict.samples) == list(range(16))


def test_a_prompt_that_does_not_fit_is_an_error_in_its_place():
    long = dataclasses.replace(comparisons()[0], id="long", responses=("parking " * 300, "wifi"))
    outcomes = list(judge().stream([comparisons()[0], long, comparisons()[1]], max_prompt=256, **OPTIONS))
    assert [outcomes[0], outcomes[2]] == judge().score(comparisons()[:2], max_prompt=256, **OPTIONS)
    assert isinstance(outcomes[1], InputError) and "longer than the context" in str(outcomes[1])
    with pytest.raises(InputError, match="'long': prompt longer"):
        judge().score([long], max_prompt=256, **OPTIONS)
    with pytest.raises(InputError, match="^comparison 2: prompt longer"):
        judge().score([comparisons()[0], dataclasses.replace(long, id="")], max_prompt=256, **OPTIONS)


def test_a_judge_of_nan_gives_no_verdicts():
    """Neither one whose policy is NaN nor one whose meta RM is, whatever the way they came into memory."""
    spoiled = jax.tree.map(lambda x: x * np.nan, judge().models.meta.params)
    options = OPTIONS | {"k": 2, "max_new_tokens": 8}
    policy = changed({"params": spoiled["model"]})
    with pytest.raises(InputError, match="the model's logits are NaN or infinite"):
        policy.score(comparisons()[:1], **options)
    guided = changed(meta={"params": spoiled})
    with pytest.raises(InputError, match="a score of the meta RM is NaN or infinite"):
        guided.score(comparisons()[:1], **options, k_meta=2)


def test_a_row_of_a_file_is_not_taken_for_a_comparison():
    row = {"id": "a", "query": "q", "responses": ["x", "y"]}
    with pytest.raises(InputError, match="to be judged is a dict, not a spct_jax.Comparison"):
        judge().score([row], **OPTIONS)
    with pytest.raises(InputError, match="to be judged is one Comparison; put it into a list"):
        judge().score(comparisons()[0], **OPTIONS)


def test_what_is_of_another_kind_is_refused_by_name():
    with pytest.raises(InputError, match="^principles is a list, neither"):
        judge().stream([], principles=["Wifi matters."])
    with pytest.raises(InputError, match="^mesh is a MeshConfig, not a layout; spct_jax.sharding.make_layout makes one"):
        Judge.load("nowhere", mesh=MeshConfig())
    with pytest.raises(InputError, match="^prompt is a str, not a spct_jax.config.PromptConfig"):
        Judge.load("nowhere", prompt="short")


def test_k_meta_needs_a_meta_rm():
    with pytest.raises(InputError, match="needs a meta RM"):
        changed().score(comparisons()[:1], **OPTIONS, k_meta=2)


def test_a_tie_has_no_best(monkeypatch):
    """Whatever the order of the responses: the second and third of three, as shown, get the same."""
    reads = changed({"prompter": RealPrompter(PromptConfig(), tokenizer())})
    answer, collect = tokenizer().encode_completion("Scores: \\boxed{3, 8, 8}"), scheduler.Engine.collect
    monkeypatch.setattr(
        scheduler.Engine, "collect", lambda self: [dataclasses.replace(f, tokens=answer) for f in collect(self)]
    )
    one = next(c for c in comparisons() if c.n == 3)
    (verdict,) = reads.score([one], **OPTIONS | {"k": 1})
    assert verdict.best is None and verdict.tied == tuple(sorted(verdict.samples[0].order[1:]))
    (verdict,) = reads.score([one], **OPTIONS | {"k": 3})  # each response once at each position
    assert (verdict.scores, verdict.best, verdict.tied) == ((19, 19, 19), None, (0, 1, 2))


@pytest.mark.parametrize("mode", ["scores", "choice", "token_prob"])
def test_a_completion_cut_at_the_limit_is_no_vote(mode, monkeypatch):
    """Of a comparison's six critiques, all of them with a box, the first two lack their terminators."""
    reads = changed({"prompter": RealPrompter(PromptConfig(), tokenizer())})
    one = next(c for c in comparisons() if c.n == 2)
    text = "Scores: \\boxed{8, 3}" if mode == "scores" else "Best: \\boxed{1}"
    answer, collect = tokenizer().encode_completion(text), scheduler.Engine.collect

    def cut(finished):
        return dataclasses.replace(finished, tokens=answer[:-1] if finished.sample < 2 else answer)

    monkeypatch.setattr(scheduler.Engine, "collect", lambda self: [*map(cut, collect(self))])
    (verdict,) = reads.score([one], **OPTIONS, mode=mode)
    assert [s.truncated for s in verdict.samples] == [s.scores is None for s in verdict.samples] == [True] * 2 + [False] * 4
    assert (verdict.valid, verdict.truncated) == (4, 2)
    assert sum(verdict.scores) == pytest.approx(44 if mode == "scores" else 4)
    assert voting.rounded(voting.sum_vote([s.scores for s in verdict.samples[2:]], 2)) == verdict.scores


def test_two_devices_give_the_same_critiques():
    got = judge(2).score(comparisons(), **OPTIONS)
    same = [a.text == b.text for v, w in zip(got, verdicts(), strict=True) for a, b in zip(v.samples, w.samples, strict=True)]
    assert np.mean(same) >= 0.99
