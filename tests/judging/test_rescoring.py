"""What is read of critiques after they are drawn: rewards of the meta RM, probabilities of a choice."""

import dataclasses
import types

import pytest
from small_judge import OPTIONS, changed, comparisons, judge, tokenizer, verdicts

from spct_jax.grm import voting
from spct_jax.judging import readings, rescoring, scheduler, tasks
from spct_jax.judging.options import Options
from spct_jax.judging.verdicts import Sample
from spct_jax.sampling import Shape


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


def test_a_row_has_few_branches_however_many_samples_are_drawn(monkeypatch):
    """Of 40 samples, two of which are the same critique."""
    added = []
    monkeypatch.setattr(rescoring, "_Batches", lambda *given: types.SimpleNamespace(add=added.append))
    tokens = {sample: [max(sample, 1), 1] for sample in range(40)}
    samples = {sample: Sample((0,), (5,), None, "") for sample in range(40)}
    task = tasks.Task(comparisons()[0], tasks.NO_PROMPTS, Shape(64, 84, rows=1), planned=40, samples=samples, tokens=tokens)
    waiting = rescoring.Rescorer(changed(meta={}).models, Options(k=40, k_meta=20))
    waiting.add(task)
    assert [len(work.branches) for work in added] == [9, 10, 10, 10] and task.to_rescore == 4
    read = sum((work.critiques.samples for work in added), [])
    assert read[0] == [0, 1] and sum(read, []) == list(range(40))
    (shapes,) = (by_shape for _, by_shape in waiting._waiting)
    assert [shape.group_size for shape in shapes] == [16]


def test_programs_are_few_however_long_critiques_are():
    """Those that begin with given principles can be longer than what is drawn at most, here 84 tokens."""
    task = types.SimpleNamespace(shape=types.SimpleNamespace(max_prompt=64, max_new_tokens=84, siblings=1))
    works = (readings.Work(readings.Critiques(task, (), [[0]]), [[0] * length]) for length in range(1, 129))
    assert {rescoring._shape(work, 1).max_completion for work in works} == {16, 32, 64, 84, 128}
