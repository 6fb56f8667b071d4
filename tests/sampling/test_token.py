"""One token: the inverse of the cumulative distribution, truncation, and how often each is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spct_jax.errors import InputError
from spct_jax.sampling import SamplingParams
from spct_jax.sampling.token import inverse_cdf, sample_token, truncate
from spct_jax.sharding import logical


def test_frequencies_match_probabilities():
    weights = jnp.array([0.3, 0.0, 0.05, 0.15, 0.0, 0.4, 0.1])
    draws = 40_000
    keys = jax.random.split(jax.random.key(3), draws)
    tokens, logprobs = sample_token(
        jnp.broadcast_to(jnp.log(weights), (draws, 7)), keys, jnp.full(draws, 5), SamplingParams(1.0, ())
    )
    counts = np.bincount(np.asarray(tokens), minlength=7)
    expected = np.asarray(weights) * draws
    assert counts[1] == counts[4] == 0
    some = expected > 0
    assert ((counts - expected)[some] ** 2 / expected[some]).sum() < 20.5  # 99.9 % point of chi-square with 4 degrees
    np.testing.assert_allclose(logprobs, jnp.log(weights)[tokens], atol=1e-6)


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [(0, 1.0, [0, 1, 2, 3]), (2, 1.0, [0, 1]), (0, 0.4, [0]), (0, 0.41, [0, 1]), (3, 0.9, [0, 1, 2]), (9, 0.99, [0, 1, 2, 3])],
)
def test_truncation_by_rank_and_by_mass(top_k, top_p, kept):
    """Of 0.4, 0.3, 0.2, 0.1; with top_k first, the mass is that of the tokens it leaves."""
    logits = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))
    got = truncate(logits, top_k, top_p)
    assert np.flatnonzero(np.isfinite(got)).tolist() == kept
    np.testing.assert_array_equal(got[jnp.array(kept)], logits[jnp.array(kept)])


@pytest.mark.parametrize(("vocab", "platform"), [*((v, "cpu") for v in (1, 2, 5, 64, 257, 1000)), (257, "tpu")])
def test_inverse_cdf_equals_the_plain_one_and_survives_the_ends(vocab, platform, monkeypatch):
    monkeypatch.setattr(logical, "platform", lambda: platform)
    rng = np.random.default_rng(vocab)
    weights = rng.random((200, vocab)).astype(np.float32) * (rng.random((200, vocab)) < 0.5)
    weights[:, rng.integers(vocab)] = 1e-30
    u = rng.random(200).astype(np.float32)
    u[:20], u[20:40] = 0.0, np.float32(1 - 2**-24)
    got = np.asarray(inverse_cdf(jnp.asarray(weights), jnp.asarray(u)))
    assert (np.take_along_axis(weights, got[:, None], 1) > 0).all()
    sums = np.cumsum(weights.astype(np.float64), -1)
    target = u * sums[:, -1]
    below = np.take_along_axis(sums - weights, got[:, None], 1)[:, 0]
    above = np.take_along_axis(sums, got[:, None], 1)[:, 0]
    slack = 1e-5 * sums[:, -1]
    assert (below <= target + slack).all() and (target <= above + slack).all()


@pytest.mark.parametrize(("top_k", "top_p"), [(-1, 1.0), (0, 0.0), (0, 1.5), (0, float("nan"))])
def test_a_truncation_out_of_range_is_refused(top_k, top_p):
    with pytest.raises(InputError, match="top_k must be at least 0 and top_p above 0 and at most 1"):
        SamplingParams(1.0, (1,), top_k, top_p)
