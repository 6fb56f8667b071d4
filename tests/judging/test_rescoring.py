"""What is read of critiques after they are drawn: rewards of the meta RM, probabilities of a choice."""

import dataclasses
import types

import pytest
from small_judge import OPTIONS, comparisons, judge, tokenizer, verdicts

from spct_jax.grm import voting
from spct_jax.judging import readings, rescoring, scheduler


def test_meta_rewards_are_those_of_each_critique_by_itself():
    guided = verdicts(k_meta=3)
    for comparison, verdict, plain in zip(comparisons(), guided, verdicts(), strict=True):
        assert [s.text for s in verdict.samples] == [s.text for s in plain.samples]
        metas = [s.meta for s in verdict.samples]
        assert len(set(metas)) > 1 or len({s.text for s in verdict.samples}) == 1
        assert verdict.scores == voting.guided_vote([s.scores for s in verdict.samples], metas, 3, comparison.n)
    again = judge().score(comparisons()[5:6], **OPTIONS, k_meta=3)
    assert again == guided[5:6]


@pytest.mark.parametrize("mode", ["choice", "token_prob"])
def test_choices_are_counted_in_input_order(mode, monkeypatch):
    """Every critique is replaced by one that names the second place."""
    answer = tokenizer().encode_completion("Best: \\boxed{2}")
    collect = scheduler.Engine.collect
    monkeypatch.setattr(
        scheduler.Engine, "collect", lambda self: [dataclasses.replace(f, tokens=answer) for f in collect(self)]
    )
    pairs = [c for c in comparisons() if c.n > 1]
    for verdict, comparison in zip(judge().score(pairs, **OPTIONS, mode=mode), pairs, strict=True):
        for sample in verdict.samples:
            assert sample.scores.index(max(sample.scores)) == sample.order[1] or mode == "token_prob"
            assert sum(sample.scores) == pytest.approx(1, abs=1e-5)
        assert sum(verdict.scores) == pytest.approx(6, abs=1e-4)
        assert verdict.truncated == 0 and not any(s.truncated for s in verdict.samples)
        if mode == "choice":
            assert verdict.scores == tuple(sum(s.order[1] == i for s in verdict.samples) for i in range(comparison.n))
        else:
            assert len({max(s.scores) for s in verdict.samples}) > 1


def test_programs_are_few_however_long_critiques_are():
    """Those that begin with given principles can be longer than what is drawn at most, here 84 tokens."""
    task = types.SimpleNamespace(shape=types.SimpleNamespace(max_prompt=64, max_new_tokens=84, siblings=1))
    works = (readings.Work(readings.Critiques(task, (), [[0]]), [[0] * length]) for length in range(1, 129))
    assert {rescoring._shape(work, 1).max_completion for work in works} == {16, 32, 64, 84, 128}
