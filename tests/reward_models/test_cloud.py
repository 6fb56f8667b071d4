"""CLoud: what is drawn for a response, and what its critiques add up to."""

import dataclasses
import types

import numpy as np
import pytest
import small_judge
from small_reward_models import scalar_model, score_alone

from spct_jax.data import batches
from spct_jax.data.comparison import Comparison, Turn
from spct_jax.errors import InputError
from spct_jax.reward_models import cloud
from spct_jax.reward_models.cloud import Cloud, CloudOptions, Critic
from spct_jax.sampling import SamplingParams
from spct_jax.sampling.engine_size import USABLE, Sizes

SHOWN = Comparison(conversation=[Turn("user", "I need wifi.")], responses=["Alba has wifi.", "No."], scores=[1, 0], id="x")


def critic():
    policy = small_judge.judge().models.policy
    return Critic(small_judge.judge().models.layout, policy.params, policy.config, policy.prompter)


def test_a_critique_depends_on_its_prompt_its_id_and_its_number_only():
    drawn, prompts = {}, [critic().prompter.encode(single, (0,)) for single in cloud.responses_apart(SHOWN)]
    for k in (2, 3):
        options = CloudOptions(k=k, temperature=1.0, max_new_tokens=16, batch_size=2)
        drawn[k] = cloud.draw(critic(), prompts, ["x/0", "x/1"], options)
    assert [one[:2] for one in drawn[3]] == drawn[2] and all(map(len, sum(drawn[3], [])))
    sizes = Sizes(critic().layout, critic().config, 1 << 40)
    shape = dataclasses.replace(sizes.choose(batches.padded_length(max(map(len, prompts))), 16, 3), rows=2, prefill_rows=2)
    chosen = dataclasses.replace(options, batch_size=0, memory=int(sizes.account(shape).total / USABLE) + 1)
    assert cloud.draw(critic(), prompts, ["x/0", "x/1"], chosen) == drawn[3]
    (alone,) = cloud.draw(critic(), prompts[1:], ["x/1"], options)
    assert alone == drawn[3][1] and len(set(map(tuple, drawn[3][1]))) == 3


@pytest.mark.parametrize(
    ("wrong", "says"), [({"k": 0}, "k: 0"), ({"temperature": -1.0}, "temperature: -1"), ({"top_p": 0.0}, "top_p")]
)
def test_options_out_of_range_are_named(wrong, says):
    with pytest.raises(InputError, match=says):
        CloudOptions(**wrong)
    if "k" not in wrong:
        with pytest.raises(InputError, match=says.partition(":")[0]):
            SamplingParams(**{"temperature": 1.0, "stop_ids": (1,)} | wrong)


def test_options_reach_the_engine_and_prompts_up_to_the_critics_positions_are_drawn_for(monkeypatch):
    """A prompt is padded no further than there are positions; one that is longer is an error before anything is drawn."""
    engines, one = [], critic()
    monkeypatch.setattr(
        cloud, "Engine", lambda *given, preamble: (engines.append(given), types.SimpleNamespace(run=lambda requests: []))[1]
    )
    prompts = [one.prompter.encode(single, (0,)) for single in cloud.responses_apart(SHOWN)]
    length, options = max(map(len, prompts)), CloudOptions(k=2, max_new_tokens=16, batch_size=2, top_k=3, top_p=0.5)
    assert length + 16 < batches.padded_length(length)
    holds = dataclasses.replace(one, config=dataclasses.replace(one.config, max_positions=length + 16))
    cloud.draw(holds, prompts, ["x/0", "x/1"], options)
    assert [(shape.max_prompt, sampling.top_k, sampling.top_p) for *_, shape, sampling in engines] == [(length, 3, 0.5)]
    for shorter in (
        lambda: cloud.draw(one, prompts, ["x/0", "x/1"], dataclasses.replace(options, max_prompt=length - 1)),
        lambda: cloud.draw(holds, prompts, ["x/0", "x/1"], dataclasses.replace(options, max_new_tokens=17)),
    ):
        with pytest.raises(InputError, match=rf"^prompt longer than the context \(more than {length - 1} tokens\)$"):
            shorter()
    assert len(engines) == 1


def test_scores_are_means_over_the_draws_whose_critiques_are_whole(monkeypatch):
    tokenizer = small_judge.tokenizer()
    texts = [["Fine.", "It has wifi.", "Bad"], ["No wifi.", "Nothing.", "Worse."]]
    critiques = [[tokenizer.encode_completion(text) for text in one] for one in texts]
    critiques[0][2].pop()  # cut
    monkeypatch.setattr(cloud, "draw", lambda critic, prompts, ids, options, beside: critiques)
    (found,) = Cloud(critic(), scalar_model(), CloudOptions(k=3)).score([dataclasses.replace(SHOWN, scores=None)])
    assert [sample.texts for sample in found.samples] == [*zip(*texts, strict=True)]
    assert [sample.truncated for sample in found.samples] == [False, False, True] and found.samples[2].scores is None
    for i, single in enumerate(cloud.responses_apart(SHOWN)):
        prompt = critic().prompter.encode(single, (0,))
        assert "Alba" in tokenizer.decode(prompt) or i == 1
        each = [score_alone([*prompt, *critiques[i][draw]]) for draw in (0, 1)]
        assert [sample.scores[i] for sample in found.samples[:2]] == pytest.approx(each, abs=2e-5)
        assert found.scores[i] == pytest.approx(np.mean(each), abs=2e-5)
