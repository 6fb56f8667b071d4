"""What rejective fine-tuning learns from, and what it leaves for RL."""

import copy
import dataclasses
import json

import numpy as np
import pytest
from stand_ins import stand_in

from spct_jax import config as config_lib
from spct_jax import pipeline
from spct_jax.data import mixtures
from spct_jax.data.index import Records
from spct_jax.errors import InputError
from spct_jax.evaluation import evaluate
from spct_jax.grm.prompts import Rollout
from spct_jax.sampling import Shape
from spct_jax.training import meta, rejection, rl
from spct_jax.training.context import Dataset, Run


@pytest.mark.parametrize(
    ("unhinted", "hinted", "kept"),
    [
        ([1, 1, 1], [1], ([], [0])),
        ([1, 1, 1], [0], ([], [])),
        ([1, 0, 1], [1], ([0, 2], [0])),
        ([0, 0, 0], [1], ([], [0])),
        ([1, 1, 1], [], ([], [])),  # a single response has no hint
    ],
)
def test_a_hinted_draw_is_dropped_only_when_it_is_wrong(unhinted, hinted, kept):
    assert rejection.retain([*map(bool, unhinted)], [*map(bool, hinted)], drop_too_easy=True) == kept


def rollout(name, *rewards):
    """Draws for a comparison of two responses whose first is better, right where the reward is 1."""
    scores = tuple((5, 1) if reward else (1, 5) for reward in rewards)
    count = len(rewards)
    return Rollout(name, (0, 1), (np.ones(1, np.int32),) * count, ("",) * count, scores, (False,) * count, (1.0, 0.0))


@pytest.fixture
def drawn_on(monkeypatch):
    """A run of six comparisons, of which 0, 2 and 5 were drawn on; all draws of 2 and 5 are right."""
    found = [(2, rollout("c", 1, 1, 1)), (5, rollout("f", 1, 1, 1)), (0, rollout("a", 1, 0, 1))]
    monkeypatch.setattr(rejection, "read", lambda run, samples: found if samples == rejection.UNHINTED else [])
    config = config_lib.tiny()
    config.rl.drop_solved, config.rl.batch_size = True, 8
    return stand_in(Run, config=config, dataset=stand_in(Dataset, train=Records.of(range(6))))


def test_rl_leaves_out_what_the_cold_start_solved(drawn_on):
    problems = rl.problems_of(drawn_on)
    assert problems.tolist() == [0, 1, 3, 4]
    assert {n for step in range(3) for n in rl.prompts_of(drawn_on, problems, step)} == {0, 1, 3, 4}
    drawn_on.config.rl.drop_solved = False
    assert rl.problems_of(drawn_on).tolist() == [*range(6)]


@pytest.mark.parametrize(("right", "said"), [(1, "1 comparisons have right ones only, which are too easy"), (0, "cold start")])
def test_rft_says_why_nothing_is_kept(drawn_on, monkeypatch, right, said):
    found = [(2, rollout("c", right, right)), (0, rollout("a", 0, 0))]
    monkeypatch.setattr(rejection, "read", lambda run, samples: found)
    drawn_on.config.rejection.hinted = False
    vars(drawn_on.dataset).update(responses=np.full(6, 2))
    with pytest.raises(InputError, match=said):
        rejection.retained_examples(drawn_on)


def test_rft_says_when_no_draw_is_a_verdict(drawn_on, monkeypatch):
    """As where the demonstrations of the cold start end otherwise than the templates ask."""
    right = rollout("c", 1, 1, 1)
    found = [(2, dataclasses.replace(right, scores=(None,) * 3, truncated=(True, False, False)))]
    monkeypatch.setattr(rejection, "read", lambda run, samples: found)
    drawn_on.config.rejection.hinted = False
    vars(drawn_on.dataset).update(responses=np.full(6, 2))
    with pytest.raises(InputError, match=r"none of 3 could be read as a verdict \(1 were cut at .* that end as the templates"):
        rejection.retained_examples(drawn_on)


def test_rl_says_when_everything_is_solved(drawn_on):
    vars(drawn_on.dataset).update(train=())
    with pytest.raises(InputError, match="config.rl.drop_solved=False"):
        rl.problems_of(drawn_on)


def test_without_rejection_sampling_nothing_is_left_out(drawn_on):
    drawn_on.config.stages = ("sft", "rl")
    assert len(rl.problems_of(drawn_on)) == 6


def test_the_meta_rm_learns_from_draws_of_the_final_policy(monkeypatch):
    """The paper's data: not RL's rollouts, but as many draws on the rejection data as were made there."""
    config = config_lib.tiny()
    rows = {rejection.UNHINTED: [(0, rollout("a", 1, 0, 1))], rejection.FINAL: [(0, rollout("a", 1, 1, 1))]}
    monkeypatch.setattr(rejection, "read", lambda run, samples: rows[samples])
    monkeypatch.setattr(rl, "read_rollouts", lambda run: [(3, rollout("d", 0, 0, 0, 1))])
    run, found = stand_in(Run, config=config), {}
    for config.meta_rm.policy_data in ("draws", "rollouts"):
        found[config.meta_rm.policy_data] = [right for _, right in meta.examples_of(run)]
    assert found == {
        "draws": [[True, False, True], [True, True, True]],
        "rollouts": [[True, False, True], [False, False, False, True]],
    }


def test_draws_are_resumed_part_by_part_and_read_back_with_their_comparisons(monkeypatch, tmp_path):
    config, asked = config_lib.tiny(), []
    config.rejection.problems, config.rejection.batch_size = 0, 2
    monkeypatch.setattr(Run, "key", lambda self, *name: name)
    dataset = stand_in(Dataset, train=Records.of(range(5)), responses=[2, 1, 1, 1, 3])
    run = stand_in(Run, config=config, workdir=tmp_path, dataset=dataset)
    monkeypatch.setattr(rejection.rollout.parameters, "policy_before", lambda run, stage: stage)
    monkeypatch.setattr(rejection.rollout.parameters, "for_sampling", lambda run, params: params)

    def draw(run, params, numbers, key, *, samples, hinted, index, **_):
        asked.append((params, numbers, key, samples, hinted, index))
        return [rollout(str(number), *[1] * samples) for number in numbers], None

    monkeypatch.setattr(rejection.rollout, "draw", draw)
    monkeypatch.setattr(rejection.rollout, "shape_of", lambda *_, **__: Shape(8, 8, rows=2))
    (tmp_path / "rejection").mkdir(), (tmp_path / "meta_rm").mkdir()
    rejection.draw(run, rejection.UNHINTED, rejection.HINTED)
    assert [(a[1], a[3]) for a in asked if a[4]] == [([0], 1), ([4], 1)]
    assert [(a[1], a[3]) for a in asked if not a[4]] == [([0, 1], 3), ([2, 3], 3), ([4], 3)]
    told = {number: hinted and hinted.id for number, _, hinted in rejection.rollouts_by_comparison(run)}
    assert told == {0: "0", 1: None, 2: None, 3: None, 4: "4"}

    asked.clear()
    rejection.draw(run, rejection.FINAL)
    assert [a[0] for a in asked] == ["meta_rm"] * 3 and {a[2] for a in asked} == {("meta_rm_draws", 0)} and asked[0][5] == 1
    (tmp_path / "meta_rm" / "draws-000002.jsonl").unlink()
    asked.clear()
    rejection.draw(run, rejection.FINAL)
    assert [a[1] for a in asked] == [[2, 3]]
    assert [(number, r.id) for number, r in rejection.read(run, rejection.FINAL)] == [(n, str(n)) for n in range(5)]


def config_of(config, **changes):
    return dataclasses.replace(copy.deepcopy(config), **changes)


def test_a_number_of_problems_is_a_sample_of_the_file_and_not_its_beginning(micro_config, tmp_path):
    run = pipeline.prepare(micro_config, tmp_path)
    drawn_on = [number for _, numbers in rejection.comparison_batches(run) for number in numbers]
    evaluate.run_evaluation(dataclasses.replace(run, config=config_of(micro_config, stages=("evaluate",))))
    ids = [json.loads(line)["id"] for line in (tmp_path / "evaluate" / "problems.jsonl").read_text().splitlines()]
    evaluated = [[c.id for c in run.dataset.test].index(id) for id in ids]
    for chosen, size, count in ((drawn_on, 24, 48), (evaluated, 10, 24)):
        assert len(set(chosen)) == size and chosen == sorted(chosen) and chosen[-1] >= size and chosen[-1] < count
    every = config_of(micro_config)
    every.rejection.problems = 0
    batches_of_all = rejection.comparison_batches(dataclasses.replace(run, config=every))
    assert [n for _, numbers in batches_of_all for n in numbers] == list(range(48))


def test_sources_of_a_mixture_are_drawn_by_their_weights_in_rl_and_rejection():
    config = config_lib.tiny()
    config.rl.batch_size, config.rejection.problems = 100, 20
    train = mixtures.mix([(3.0, Records.of(range(10))), (1.0, Records.of(range(90)))])
    run = stand_in(Run, config=config, dataset=stand_in(Dataset, train=train))
    drawn = np.array([number for step in range(100) for number in rl.prompts_of(run, np.arange(5, 100), step)])
    assert (drawn < 10).sum() == 7500 and set(drawn.tolist()) == set(range(5, 100))
    chosen = np.array([number for _, numbers in rejection.comparison_batches(run) for number in numbers])
    assert len(chosen) == len(set(chosen.tolist())) and 7 <= (chosen < 10).sum() <= 10
