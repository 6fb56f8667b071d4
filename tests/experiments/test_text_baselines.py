import json
import random

import jax
import numpy as np
import pytest
import small_judge
import study_modules

from spct_jax import models
from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError


@pytest.fixture(scope="module")
def baselines():
    with study_modules.imported("text_baselines") as (module,):
        yield module


def compare(*responses, best=0, query="Where to?", id="x"):
    scores = [float(i == best) for i in range(len(responses))]
    return Comparison(conversation=[{"role": "user", "content": query}], responses=responses, scores=scores, id=id)


def world(count):
    """Invented: the best response is the kind one, in four of five the longer; the others are curt."""
    for i in range(count):
        rng = random.Random(i)
        kind = (
            f"Sure, I am glad to help. Carry it to the {rng.choice(('harbour', 'market', 'attic'))}, then rest for {i} minutes."
        )
        curt = [
            f"Leave it there, number {j}." + " Or throw it away, whatever you like, it is all the same." * (i % 5 == 0)
            for j in "ab"
        ]
        shown = [kind, *curt[: 1 + i % 2]]
        order = rng.sample(range(len(shown)), len(shown))
        yield compare(*(shown[j] for j in order), best=order.index(0))


def test_length(baselines):
    train, judged = list(world(40)), list(world(60))[40:]
    length = baselines.Length.fit(train)
    assert length.longer and str(length) == "the longer response"
    assert baselines.credits(length.totals(judged), judged).mean() == 0.8
    shorter = baselines.Length.fit([compare("a", "bb")])
    assert not shorter.longer
    judged = [compare("aa", "b", best=1), compare("aa", "b", best=0), compare("a", "b", "cc")]
    assert baselines.credits(shorter.totals(judged), judged).tolist() == [1, 0, 0.5]


def test_bag_of_words_separates(baselines):
    shown = list(world(120))
    words = baselines.BagOfWords.fit(shown[:80], shown[80:100])
    assert baselines.credits(words.totals(shown[100:]), shown[100:]).mean() == 1
    unknown = compare("zzz", "qqq", "sure", best=2)
    assert baselines.credits(words.totals([unknown]), [unknown]).tolist() == [1]
    assert baselines.credits(words.totals([compare("zzz", "qqq")]), [compare("zzz", "qqq")]).tolist() == [0.5]


def test_bag_of_words_is_at_the_minimum_of_its_loss(baselines):
    """Against the gradient, written out pair by pair and word by word in Python's floats."""
    shown = list(world(30))
    words = baselines.BagOfWords.fit(shown, shown[:10])
    weights = dict(zip(words.words, words.weights.tolist(), strict=True))

    def counts(text):
        return {w: baselines._words(text).count(w) for w in words.words}

    pairs = [(counts(c.responses[c.best]), counts(r)) for c in shown for i, r in enumerate(c.responses) if i != c.best]
    for word in words.words:
        slope = words.l2 * weights[word]
        for best, other in pairs:
            margin = sum(weights[w] * (best[w] - other[w]) for w in words.words)
            slope -= (best[word] - other[word]) / (1 + np.exp(margin)) / len(pairs)
        assert abs(slope) < 1e-4


def test_bag_of_words_needs_words_and_development_pairs(baselines):
    with pytest.raises(InputError, match="no word occurs in 3"):
        baselines.BagOfWords.fit([compare("one", "two")], [compare("one", "two")])
    with pytest.raises(InputError, match="no development pairs"):
        baselines.BagOfWords.fit(list(world(20)), [])


def test_likelihoods_are_those_of_a_plain_forward_pass(baselines):
    judge = small_judge.judge()
    policy, tokenizer = judge.models.policy, judge.models.policy.prompter.tokenizer
    shown = [
        compare("Linden has shade.", "Grove has tea, quiet, parking.", "Harbour."),
        compare("Yes", "No, not at all", best=1),
    ]
    found = {(i, j): (total, size) for i, j, total, size in baselines.likelihoods(judge, shown, (32, 64), 256)}
    assert sorted(found) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]

    @jax.jit
    def logprobs_of(tokens):
        return jax.nn.log_softmax(models.logits(policy.params, policy.config, tokens[None]), axis=-1)[0]

    for i, comparison in enumerate(shown):
        prompt, responses = baselines.encode(tokenizer, comparison)
        assert tokenizer.decode(prompt) == "Human: Where to?\n\nAssistant:"
        for j, response in enumerate(responses):
            total, size = found[i, j]
            tokens, places = prompt + response, np.arange(len(prompt), len(prompt) + len(response))
            # What stands behind a token does not count; of one length they are one program.
            logprobs = np.asarray(logprobs_of(np.pad(tokens, (0, 64 - len(tokens)))))
            assert size == len(response)
            assert total == pytest.approx(float(logprobs[places - 1, response].sum()), abs=1e-3)


def test_long_texts_are_cut(baselines):
    judge = small_judge.judge()
    long = compare("shade " * 100, "tea", query="quiet " * 100)
    (_, _, cut, size), (_, _, whole, _) = baselines.likelihoods(judge, [long], (32,), 256)
    assert size == 32 and np.isfinite([cut, whole]).all()


def test_likelihoods_are_read_back(baselines, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"id": "a", "logprobs": [-6.0, -4.0], "tokens": [3, 1]}) + "\n")
    found = baselines.read_likelihoods(path)
    assert found == {"summed": {"a": (-6.0, -4.0)}, "per token": {"a": (-2.0, -4.0)}}
