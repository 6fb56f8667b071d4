"""What rejective fine-tuning learns from, and what it leaves for RL."""

from types import SimpleNamespace

import pytest

from spct_jax import config as config_lib
from spct_jax.errors import InputError
from spct_jax.sampling.rollouts import Rollout
from spct_jax.training import grpo, rejection


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
    return Rollout(name, (0, 1), ((1,),) * count, ("",) * count, scores, (False,) * count, (1.0, 0.0))


@pytest.fixture
def drawn_on(monkeypatch):
    """A run of six comparisons, of which 0, 2 and 5 were drawn on; all draws of 2 and 5 are right."""
    found = [(2, rollout("c", 1, 1, 1), None), (5, rollout("f", 1, 1, 1), rollout("f", 0)), (0, rollout("a", 1, 0, 1), None)]
    monkeypatch.setattr(rejection, "_drawn", lambda run: found)
    config = config_lib.tiny()
    config.rl.drop_solved, config.rl.batch_size = True, 8
    return SimpleNamespace(config=config, dataset=SimpleNamespace(train=range(6)))


def test_rl_leaves_out_what_the_cold_start_solved(drawn_on):
    problems = grpo.problems_of(drawn_on)
    assert problems.tolist() == [0, 1, 3, 4]
    assert {n for step in range(3) for n in grpo.batch_of(drawn_on, problems, step)} == {0, 1, 3, 4}
    drawn_on.config.rl.drop_solved = False
    assert grpo.problems_of(drawn_on).tolist() == [*range(6)]


def test_rl_says_when_everything_is_solved(drawn_on):
    drawn_on.dataset.train = ()
    with pytest.raises(InputError, match="config.rl.drop_solved=False"):
        grpo.problems_of(drawn_on)


def test_without_rejection_sampling_nothing_is_left_out(drawn_on):
    drawn_on.config.stages = ("sft", "rl")
    assert len(grpo.problems_of(drawn_on)) == 6
