"""PairRM's scores: both orders of every pair."""

import itertools

import pytest
import small_judge
from small_reward_models import scalar_model, score_alone

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.reward_models.pairrm import PairRM

RESPONSES = ("Alba has wifi.", "Birch has sun, tea.", "No.")


def score(*responses):
    shown = Comparison(conversation=[Turn("user", "I need wifi.")], responses=responses)
    (found,) = PairRM(scalar_model()).score([shown])
    return found.scores


def test_scores_are_the_mean_over_pairs_of_both_orders_each_read_by_itself():
    tokenizer = small_judge.tokenizer()
    prompt = tokenizer.encode_turns([Turn("user", "I need wifi.")])
    answers = [[*tokenizer.encode(response), tokenizer.end_of_turn_id] for response in RESPONSES]
    alone = {(a, b): score_alone([*prompt, *answers[a], *answers[b]]) for a, b in itertools.permutations(range(3), 2)}
    wanted = [sum(alone[i, j] - alone[j, i] for j in range(3) if j != i) / 2 for i in range(3)]
    assert score(*RESPONSES) == pytest.approx(wanted, abs=5e-5)


def test_the_order_of_two_responses_turns_the_sign_and_nothing_else():
    one, other = score(*RESPONSES[:2]), score(*RESPONSES[1::-1])
    assert one[0] == -one[1] == other[1] == -other[0] != 0


def test_a_single_response_has_no_score():
    assert score("Alba has wifi.") is None
