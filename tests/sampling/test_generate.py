"""`sampling.generate`: what it promises of completions, whatever the way they are drawn."""

import dataclasses
import functools
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax import models, sampling, sharding
from spct_jax.errors import InputError
from spct_jax.models import sizes
from spct_jax.sampling import engine_params, engine_shape
from spct_jax.sharding.config import MeshConfig

CONFIG = dataclasses.replace(sizes.toy(40), num_layers=2, window=8)
PROMPTS = [[5], [3, 4], list(range(2, 14)), [7] * 17]
KEY = jax.random.key(7)


plain = jax.jit(models.logits, static_argnames="config")


@functools.cache
def params():
    return jax.jit(models.init, static_argnums=0)(CONFIG, jax.random.key(0))


def run(prompts=PROMPTS, key=KEY, **changes):
    options = {"num_samples": 8, "max_new_tokens": 24, "temperature": 1.0, "stop_ids": (1,)} | changes
    return jax.tree.map(np.asarray, sampling.generate(params(), CONFIG, prompts, key, **options))


@jax.jit
def trainer(trunks, lengths, inputs, targets, temperature):
    trunk = models.prefill(params(), CONFIG, trunks, lengths)
    return models.token_logprobs(params(), CONFIG, trunk, inputs, targets, temperature=temperature)[0]


def scored(prompts, completions, temperature):
    """Log-probabilities [B G T] of completions [B G T] by the trainer's function."""
    trunks = np.zeros((len(prompts), 32), np.int32)
    for row, prompt in zip(trunks, prompts, strict=True):
        row[32 - len(prompt) + 1 :] = prompt[:-1]
    lengths = np.array([len(prompt) - 1 for prompt in prompts])
    last = np.broadcast_to(np.array([p[-1] for p in prompts])[:, None, None], (*completions.shape[:2], 1))
    inputs = np.concatenate([last, completions[..., :-1]], -1)
    return trainer(trunks, lengths, inputs, completions, temperature)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_sampler_and_trainer_agree_on_probabilities(temperature):
    out = run(temperature=temperature)
    inside = np.arange(out.tokens.shape[-1]) < out.lengths[..., None]
    ratio = np.exp(scored(PROMPTS, out.tokens, temperature) - out.logprobs)
    assert np.abs(ratio - 1)[inside].max() <= 1e-4


def test_greedy_takes_the_likeliest_token_and_reports_temperature_one():
    out = run(temperature=0.0, stop_ids=())
    np.testing.assert_array_equal(out.tokens[:, 0], out.tokens[:, 1])
    for prompt, tokens, logprobs in zip(PROMPTS, out.tokens, out.logprobs, strict=True):
        row = np.zeros(48, np.int32)
        row[: len(prompt) + 24] = [*prompt, *tokens[0]]
        logits = plain(params(), CONFIG, row[None])[0, len(prompt) - 1 : len(prompt) + 23]
        np.testing.assert_array_equal(logits.argmax(-1), tokens[0])
        np.testing.assert_allclose(jax.nn.log_softmax(logits).max(-1), logprobs[0], atol=1e-5)


@pytest.mark.parametrize("temperature", [1e-6, 1e-10, 1e-30])
def test_a_temperature_close_to_zero_is_greedy(temperature):
    """Logits divided by it would not be finite, and the last id the one drawn."""
    greedy, out = run(temperature=0.0), run(temperature=temperature)
    jax.tree.map(np.testing.assert_array_equal, greedy, out)
    inside = np.arange(out.tokens.shape[-1]) < out.lengths[..., None]
    again = scored(PROMPTS, out.tokens, temperature)
    np.testing.assert_array_equal(again, scored(PROMPTS, out.tokens, 0.0))
    assert np.abs(again - out.logprobs)[inside].max() <= 1e-4


def test_a_low_temperature_draws_the_likeliest_and_says_that_it_is_sure():
    out = run(temperature=2e-5)
    np.testing.assert_array_equal(out.tokens, run(temperature=0.0).tokens)
    assert np.abs(out.logprobs).max() < 0.1


def test_logits_of_nan_are_an_error():
    spoiled = params() | {"final_norm": {"scale": params()["final_norm"]["scale"].at[0].set(np.nan)}}
    with pytest.raises(InputError, match="the model's logits are NaN or infinite"):
        sampling.generate(spoiled, CONFIG, PROMPTS[:1], KEY, num_samples=1, max_new_tokens=8)


def test_the_first_eight_of_thirty_two_samples_are_the_eight():
    few, many = run(num_samples=8), run(num_samples=32)
    np.testing.assert_array_equal(few.tokens, many.tokens[:, :8])
    np.testing.assert_allclose(few.logprobs, many.logprobs[:, :8], atol=1e-5)


def test_a_longer_limit_continues_the_same_completions():
    short, long = run(max_new_tokens=10), run(max_new_tokens=24)
    np.testing.assert_array_equal(short.tokens, long.tokens[..., :10])


def test_completions_end_in_a_terminator_that_counts():
    stops = (1, 9)
    out = run(stop_ids=stops)
    T = out.tokens.shape[-1]
    assert (out.lengths < T).any() and (out.lengths >= 1).all()
    for tokens, length, logprobs in zip(
        out.tokens.reshape(-1, T), out.lengths.ravel(), out.logprobs.reshape(-1, T), strict=True
    ):
        assert not np.isin(tokens[: length - 1], stops).any()
        assert tokens[length - 1] in stops or length == T
        assert not tokens[length:].any() and not logprobs[length:].any()
        assert (logprobs[:length] < 0).all()


def test_default_types_of_64_bits_change_nothing():
    wanted = run(max_new_tokens=10)
    with jax.enable_x64(True):
        found = run(max_new_tokens=10)
    jax.tree.map(np.testing.assert_array_equal, wanted, found)


def test_stop_set_only_cuts_completions():
    free, cut = run(stop_ids=()), run(stop_ids=(1, 9))
    inside = np.arange(24) < cut.lengths[..., None]
    np.testing.assert_array_equal(np.where(inside, free.tokens, 0), cut.tokens)
    assert (free.lengths == 24).all()


def test_the_layout_of_the_parameters_is_that_of_the_draw():
    """Prompts that two devices do not divide; parameters split over them, copied, and on one device."""
    split = sharding.make_layout(MeshConfig(strategy="fsdp"))
    options = {"num_samples": 2, "max_new_tokens": 12}
    want = sampling.generate(params(), CONFIG, PROMPTS[:3], KEY, **options)
    for layout in (split, sharding.make_layout()):
        assert sharding.layout_of(jax.device_put(params(), layout.params(params()))) == layout
        got = sampling.generate(jax.device_put(params(), layout.params(params())), CONFIG, PROMPTS[:3], KEY, **options)
        np.testing.assert_array_equal(got.tokens, want.tokens)


def test_programs_are_compiled_for_few_numbers_of_prompts(monkeypatch):
    rows = []

    def engine(layout, params, config, shape, sampling, preamble):
        rows.append(shape.rows)
        return types.SimpleNamespace(run=lambda requests: [])

    monkeypatch.setattr(sys.modules["spct_jax.sampling.generate"], "Engine", engine)
    for count in range(1, 10):
        run([[7] * 9] * count + [[7] * 20])
    assert rows[::2] == [1, 2, 4, 4, 8, 8, 8, 8, 16] and rows[1::2] == [1] * 9


def test_parameters_are_converted_once_for_all_lengths_of_prompts_and_may_be_numpys(monkeypatch):
    converted, convert = [], engine_params.conversion
    monkeypatch.setattr(engine_params, "conversion", lambda *of: lambda p: converted.append(of) or convert(*of)(p))
    config = dataclasses.replace(CONFIG, pattern=("local",), num_layers=3)
    own = jax.tree.map(np.asarray, models.init(config, jax.random.key(0)))
    prompts = [[3] * length for length in (4, 20, 40)]
    drawn = sampling.generate(own, config, prompts, KEY, num_samples=1, max_new_tokens=4, stop_ids=())
    assert len(converted) == 1 and drawn.lengths.tolist() == [[4]] * 3


def test_one_key_is_folded_with_the_prompts_index():
    keys = jnp.stack([jax.random.fold_in(KEY, b) for b in range(len(PROMPTS))])
    np.testing.assert_array_equal(run().tokens, run(key=keys).tokens)
    np.testing.assert_array_equal(run(PROMPTS[:3]).tokens, run().tokens[:3])


def test_results_come_back_in_the_order_of_prompts_of_different_buckets():
    keys = jax.random.split(KEY, 4)
    forward, backward = run(key=keys), run(PROMPTS[::-1], key=keys[::-1])
    np.testing.assert_array_equal(forward.tokens, backward.tokens[::-1])
    np.testing.assert_array_equal(run(bucket=32).tokens, run().tokens)


def test_truncated_completions_report_the_truncated_distribution():
    out = run(top_k=3, stop_ids=())
    free = scored(PROMPTS, out.tokens, 1.0)
    assert (out.logprobs > free).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "at least one prompt"),
        ({"prompts": [[3], []]}, "prompt 1 is empty"),
        ({"prompts": [[3], [40]]}, "^prompt 1: 40 is outside the vocabulary of 40$"),
        ({"prompts": [[3, -1]]}, "^prompt 0: -1 is outside the vocabulary of 40$"),
        ({"bucket": 4}, "prompt 2 has 12 tokens"),
        ({"num_samples": 0}, "at least 1"),
        ({"temperature": -1.0}, "at least 0"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"top_p": 1.5}, "top_p above 0"),
        ({"key": jax.random.split(KEY, 3)}, "one key or 4 keys"),
    ],
)
def test_bad_requests_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        run(**change)


def test_completions_longer_than_the_model_is_made_for_are_refused():
    """Else a slip in `max_new_tokens` would take all memory, and what is drawn behind the last position has no meaning."""
    short = dataclasses.replace(CONFIG, max_positions=40)
    with pytest.raises(InputError, match=r"longest prompt and max_new_tokens are 17 \+ 24 = 41 tokens; the model has 40 pos"):
        sampling.generate(params(), short, PROMPTS, KEY, num_samples=1, max_new_tokens=24)


def test_a_preamble_is_computed_once_for_the_prompts_that_begin_with_it(monkeypatch):
    monkeypatch.setattr(engine_shape, "LEAST_SHARED", 4)
    begin = [9, 8, 7, 6, 5]
    prompts = [[*begin, *PROMPTS[1]], PROMPTS[3], [*begin, *PROMPTS[2]]]
    once, whole = run(prompts, preamble=begin), run(prompts)
    np.testing.assert_array_equal(once.tokens, whole.tokens)
    np.testing.assert_allclose(once.logprobs, whole.logprobs, atol=1e-4)
