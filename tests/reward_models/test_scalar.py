"""Rewards of completions that share prompts and batches are those of each by itself."""

import dataclasses

import numpy as np
import pytest
import small_judge
from small_reward_models import scalar_model, score_alone

from spct_jax.data.comparison import Turn
from spct_jax.errors import InputError
from spct_jax.reward_models import scalar

TEXTS = ["Alba has wifi.", "Birch has sun, tea.", "No."]


def example(query, count):
    tokenizer = small_judge.tokenizer()
    responses = [f"{TEXTS[i % 3]} {i}" for i in range(count)]
    return tokenizer.encode_turns([Turn("user", query)]), [tokenizer.encode_completion(text) for text in responses]


def test_a_reward_depends_on_its_own_prompt_and_completion_only():
    model, examples = scalar_model(), [example("I need wifi.", 3), example("I want tea and sun.", 19)]
    together = model.rewards(examples)
    assert [len(row) for row in together] == [3, 19]
    for (prompt, completions), row in zip(examples, together, strict=True):
        for at in (0, len(row) - 1):
            assert row[at] == pytest.approx(score_alone([*prompt, *completions[at]]), abs=2e-5)
    assert model.rewards(examples[1:]) == together[1:] and model.rewards(examples[:1]) == together[:1]


def test_lengths_have_few_shapes_and_little_padding():
    padded = [scalar.coarse_length(length) for length in range(1, 5000)]
    assert sorted(set(padded)) == [64, 256, 1024, 2048, 4096, 8192]
    assert all(length <= most < max(4 * length, 65) for length, most in enumerate(padded, 1))
    # A batch of a shape is no longer than what a device is given at once, whatever the shape.
    model, rows = scalar_model(), []
    original = scalar.batches.pack
    pack = lambda prompts, *args, **kwargs: rows.append((len(prompts), kwargs)) or original(prompts, *args, **kwargs)  # noqa: E731
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scalar.batches, "pack", pack)
        model.rewards([example("I need wifi.", 2)])
    ((count, shape),) = rows
    tokens = count * (shape["max_prompt"] + shape["group_size"] * shape["max_completion"])
    assert scalar.BATCH_TOKENS / 2 < tokens <= scalar.BATCH_TOKENS * model.layout.batch_shards


def test_what_does_not_fit_or_is_not_finite_is_an_error():
    model = scalar_model()
    short = dataclasses.replace(model, config=dataclasses.replace(model.config, max_positions=16))
    with pytest.raises(InputError, match="the model has 16 positions"):
        short.rewards([example("I need wifi.", 1)])
    broken = dataclasses.replace(model, params=model.params | {"head": {"score": model.params["head"]["score"] * np.inf}})
    with pytest.raises(InputError, match="NaN or infinite"):
        broken.rewards([example("I need wifi.", 1)])
