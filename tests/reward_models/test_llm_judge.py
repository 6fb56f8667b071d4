"""The probabilities of the numbers that a choice could have been."""

import compiled
import jax
import jax.numpy as jnp
import numpy as np
from small_judge import judge, tokenizer

from spct_jax.data import batches
from spct_jax.judging import readings
from spct_jax.reward_models import llm_judge


def test_votes_of_an_llm_judge_and_their_weights():
    """The completion is given; its last box names place 2."""
    text = "so it is \\boxed{1}, no: Best: \\boxed{2}"
    tokens = tokenizer().encode_completion(text)
    position, candidates = llm_judge.locate(tokenizer(), tokens, 3)
    assert "2" in tokenizer().piece(tokens[position]) and tokens[position] == candidates[1]
    assert tokenizer().decode(tokens[:position]).endswith("\\boxed{") or "{" in tokenizer().piece(tokens[position])
    one, prompt = judge(), tokenizer().encode_completion("Which one?")
    groups = batches.pack([prompt], [[tokens]], max_prompt=16, max_completion=64, group_size=1)
    params, config = one.models.policy.params, one.models.policy.config
    positions, among = np.array([[position]]), np.array([[[*candidates, llm_judge.ABSENT]]])
    trunk = compiled.prefill(params, config, *map(jnp.asarray, (groups.trunk_tokens, groups.trunk_lengths)))
    weigh = readings.program(llm_judge.choice_probabilities, one.models.layout, config)
    got = weigh(params, trunk, groups, positions, among)[0, 0]
    row = jnp.array([[*prompt, *tokens]])
    logits = compiled.logits(params, config, row)[0, len(prompt) + position - 1]
    np.testing.assert_allclose(got[:3], jax.nn.softmax(logits[np.array(candidates)]), atol=1e-5)
    assert got[3] == 0
