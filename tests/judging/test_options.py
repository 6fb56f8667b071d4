"""Options out of range, by themselves and for a model."""

import dataclasses

import numpy as np
import pytest
from small_judge import OPTIONS, changed, comparisons, judge

from spct_jax.errors import InputError
from spct_jax.judging.options import Options
from spct_jax.models import sizes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, r"^k: 0 is not in"),
        ({"k_meta": 7}, "^k_meta: 7 is more than"),
        ({"temperature": -0.5}, "temperature"),
        ({"order": "alphabetical"}, "'alphabetical' is none of balanced, random"),
        ({"mode": "guess"}, "'guess' is none of scores, choice, token_prob"),
        ({"adaptive": 0.1, "k_meta": 2}, "exclude each other"),
        ({"adaptive": 0.1, "mode": "token_prob"}, "exclude each other"),
        ({"adaptive": 1.5}, "adaptive"),
        ({"seed": 2**32}, r"^seed: 4294967296 is not in \[0, 4294967295\]"),
        ({"seed": -1}, "^seed: -1 is not in"),
    ],
)
def test_options_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        judge().score(comparisons()[:1], **OPTIONS | change)


def test_a_number_of_numpys_is_the_number():
    options = Options(k=np.int64(4), temperature=np.float32(0.5), seed=np.uint32(3))
    assert options == Options(k=4, temperature=0.5, seed=3) and {type(options.k), type(options.seed)} == {int}
    with pytest.raises(InputError, match="^k: 0 is not in"):
        Options(k=np.int64(0))
    with pytest.raises(InputError, match="^k: 2.0 is not a whole number"):
        Options(k=np.float32(2))


def test_prompts_and_critiques_beyond_the_models_positions_are_refused():
    """By the judge before anything is drawn; where no length is given, prompts get what critiques leave."""
    plain = judge().models.policy.config
    few = dataclasses.replace(plain, max_positions=9000)
    short = changed({"config": few})
    with pytest.raises(InputError, match="8,192 [+] 1,024 = 9,216 tokens; the model has 9,000 positions"):
        short.stream([], max_prompt=8192)
    with pytest.raises(InputError, match="^max_new_tokens: 9,000 leave no room for a prompt, since the model has 9,000 pos"):
        short.stream([], max_new_tokens=9000)
    with pytest.raises(InputError, match="8,000 [+] 1,001 = 9,001 tokens"):
        short.stream([], buckets=((10, 20), (8000, 1001)))
    meta = changed(meta={"config": few})
    with pytest.raises(InputError, match="the model has 9,000 positions"):
        meta.stream([], max_prompt=8192)
    assert Options().for_model(few).max_prompt == 9000 - 1024
    assert Options().for_model(plain).max_prompt == Options().for_model(sizes.gemma3_27b()).max_prompt == 8192
    assert Options().for_model(sizes.gemma2_27b()).max_prompt == 8192 - 1024


@pytest.mark.parametrize(
    ("options", "n", "samples"),
    [
        ({}, 2, 4),
        ({}, 3, 2),
        ({}, 1, 8),
        ({"k": 32}, 4, 8),
        ({"k": 2}, 4, 1),
        ({"k": 32, "order": "random"}, 2, 16),
        ({"k": 32, "order": "random"}, 4, 1),
        ({"k": 32, "adaptive": 0.1}, 2, 1),
        ({"k": 32, "adaptive": 0.1, "rounds": 4}, 2, 4),
        ({"k": 2, "adaptive": 0.1, "rounds": 4}, 2, 1),
    ],
)
def test_the_samples_of_an_order_that_are_asked_for_together(options, n, samples):
    """As many as some order gets at the least."""
    assert Options(**options).samples_at_once(n) == samples
