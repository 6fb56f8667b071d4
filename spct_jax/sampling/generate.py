"""The sampling kernel: each prompt's trunk is computed once, all of its branches are decoded together.

Token t of sample s of prompt b is drawn with `fold_in(fold_in(key_b, s), t)`, so more samples, a longer limit or other
prompts beside it change nothing in a completion. Letters as in `spct_jax.models.gemma`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spct_jax import models
from spct_jax.errors import InputError

UNROLLED_LAYERS = 8
"""Stacks up to this deep are decoded without a scan over layers."""


@flax.struct.dataclass
class Completions:
    """Samples and what the sampling distribution said of them.

    Attributes:
      tokens: Int32[B G T], 0 after the end.
      lengths: Int32[B G], the terminator included.
      logprobs: Float32[B G T], of each token under the distribution it was drawn from (at temperature 0, under the one
        of temperature 1); 0 after the end.
    """

    tokens: jax.Array
    lengths: jax.Array
    logprobs: jax.Array


def branch_keys(keys: jax.Array, samples: jax.Array) -> jax.Array:
    """Keys of samples Int[B G] of B prompts with `keys` [B]: fold_in(key_b, s), [B G]."""
    return jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))(keys, samples)


def inverse_cdf(weights: jax.Array, u: jax.Array) -> jax.Array:
    """The index at which the cumulative sum of weights [.. V] passes u times their total: Int32[..].

    Works in two steps of about the root of V: cumulative sums are slow, plain sums are not. Never returns an index of
    zero weight, whatever u in [0, 1) and the rounding.
    """
    V = weights.shape[-1]
    width = 1 << (max(V - 1, 1).bit_length() + 1) // 2
    blocks = jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, -V % width)])
    blocks = blocks.reshape(*weights.shape[:-1], -1, width)
    sums = blocks.sum(-1)
    block, before = _first_past(sums, u * sums.sum(-1))
    inside = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    return block * width + _first_past(inside, u * sums.sum(-1) - before)[0]


def _first_past(weights: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First index of positive weight whose cumulative sum exceeds `target`, else the last one; and the sum before."""
    sums = jnp.cumsum(weights, axis=-1)
    positive = weights > 0
    past = positive & (sums > target[..., None])
    last = weights.shape[-1] - 1 - jnp.argmax(positive[..., ::-1], axis=-1)
    index = jnp.where(past.any(-1), jnp.argmax(past, axis=-1), last)
    before = jnp.take_along_axis(sums - weights, index[..., None], axis=-1)[..., 0]
    return index, before


def _sample(logits: jax.Array, keys: jax.Array, t: jax.Array, temperature: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Token and log-probability, Int32[B G] and Float32[B G], from logits [B G V]."""

    def uniform(key):
        return jax.random.uniform(jax.random.fold_in(key, t))

    scaled = logits / jnp.where(temperature > 0, temperature, 1.0)
    peak = jnp.max(scaled, axis=-1, keepdims=True)
    weights = jnp.exp(scaled - peak)
    token = lax.cond(
        temperature > 0,
        lambda: inverse_cdf(weights, jax.vmap(jax.vmap(uniform))(keys)),
        lambda: jnp.argmax(scaled, axis=-1),
    ).astype(jnp.int32)
    chosen = jnp.take_along_axis(scaled, token[..., None], axis=-1) - peak
    return token, chosen[..., 0] - jnp.log(jnp.sum(weights, axis=-1))


@functools.partial(jax.jit, static_argnames=("config", "max_new_tokens", "stop_ids"))
def draw(
    params: models.Params,
    config: models.ModelConfig,
    trunk_tokens: jax.Array,
    trunk_lengths: jax.Array,
    last_tokens: jax.Array,
    keys: jax.Array,
    temperature: jax.Array | float,
    *,
    max_new_tokens: int,
    stop_ids: tuple[int, ...],
    active: jax.Array | None = None,
) -> Completions:
    """Draws G completions of each of B prompts; compiled once per shapes.

    Args:
      params: the model's parameters.
      config: the architecture.
      trunk_tokens: Int[B P], the prompts without their last token, right-aligned.
      trunk_lengths: Int[B], tokens in each trunk, 0 to P.
      last_tokens: Int[B], the last token of each prompt.
      keys: [B G], from `branch_keys`.
      temperature: divides the capped logits; 0 is greedy.
      max_new_tokens: T, where completions are cut.
      stop_ids: terminators; the one that ends a completion is part of it.
      active: Bool[B G]; branches that are not come back empty.

    Returns:
      The `Completions`.
    """
    B, G = keys.shape
    temperature = jnp.asarray(temperature, jnp.float32)
    trunk = models.prefill(params, config, trunk_tokens, trunk_lengths)
    if config.num_layers <= UNROLLED_LAYERS:
        params, config, trunk = models.unrolled(params, config, trunk)
    stops = jnp.asarray(stop_ids, jnp.int32)

    def step(state):
        t, last, done, cache, out = state
        hidden, cache = models.extend(params, config, trunk, last[..., None], cache, t)
        token, logprob = _sample(models.unembed(params, config, hidden[:, :, 0]), keys, t, temperature)
        token, logprob = jnp.where(done, 0, token), jnp.where(done, 0.0, logprob)
        out = Completions(
            tokens=lax.dynamic_update_index_in_dim(out.tokens, token, t, axis=2),
            lengths=out.lengths + ~done,
            logprobs=lax.dynamic_update_index_in_dim(out.logprobs, logprob, t, axis=2),
        )
        return t + 1, token, done | (token[..., None] == stops).any(-1), cache, out

    empty = Completions(
        tokens=jnp.zeros((B, G, max_new_tokens), jnp.int32),
        lengths=jnp.zeros((B, G), jnp.int32),
        logprobs=jnp.zeros((B, G, max_new_tokens), jnp.float32),
    )
    last = jnp.broadcast_to(last_tokens[:, None], (B, G)).astype(jnp.int32)
    done = jnp.zeros((B, G), bool) if active is None else ~active
    state = (jnp.int32(0), last, done, models.init_cache(config, B, G, max_new_tokens), empty)
    return lax.while_loop(lambda s: (s[0] < max_new_tokens) & ~s[2].all(), step, state)[-1]


def bucket_of(length: int) -> int:
    """The fixed table of trunk shapes: the next power of two, at least 16."""
    return max(16, 1 << max(length - 1, 0).bit_length())


def generate(
    params: models.Params,
    config: models.ModelConfig,
    prompts: Sequence[Sequence[int]],
    key: jax.Array,
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    stop_ids: Sequence[int] = (1,),
    bucket: int | None = None,
) -> Completions:
    """Draws `num_samples` completions of every prompt.

    Args:
      params: the model's parameters.
      config: the architecture.
      prompts: B non-empty lists of token ids.
      key: one key, folded with the index of the prompt, or an array of B keys.
      num_samples: G; the first samples are the same whatever it is.
      max_new_tokens: T, where completions are cut.
      temperature: divides the capped logits; 0 is greedy.
      stop_ids: terminators; the one that ends a completion is part of it.
      bucket: trunk shape for all prompts; None takes each prompt's own from the fixed table (`bucket_of`).

    Returns:
      `Completions` with tokens Int32[B G T], lengths Int32[B G] and logprobs Float32[B G T].

    Raises:
      InputError: no prompts, an empty prompt, a token outside the vocabulary, a prompt longer than `bucket`, a wrong
        number of keys, or a number out of range.
    """
    _check(config, prompts, num_samples, max_new_tokens, temperature, bucket)
    B = len(prompts)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim == 0:
        key = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(B))
    if key.shape != (B,):
        raise InputError(f"generate needs one key or {B} keys, got shape {key.shape}")
    keys = branch_keys(key, jnp.broadcast_to(jnp.arange(num_samples), (B, num_samples)))

    buckets = np.array([bucket or bucket_of(len(prompt) - 1) for prompt in prompts])
    parts, order = [], []
    for P in sorted(set(buckets.tolist())):
        rows = np.flatnonzero(buckets == P)
        trunk_tokens = np.zeros((len(rows), P), np.int32)
        for row, trunk in zip(trunk_tokens, (prompts[i][:-1] for i in rows), strict=True):
            row[P - len(trunk) :] = trunk
        parts.append(
            draw(
                params,
                config,
                trunk_tokens,
                np.array([len(prompts[i]) - 1 for i in rows], np.int32),
                np.array([prompts[i][-1] for i in rows], np.int32),
                keys[rows],
                temperature,
                max_new_tokens=max_new_tokens,
                stop_ids=tuple(stop_ids),
            )
        )
        order.extend(rows.tolist())
    back = np.argsort(order)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[back], *parts)


def _check(config, prompts, num_samples, max_new_tokens, temperature, bucket):
    if not len(prompts):
        raise InputError("generate needs at least one prompt")
    if num_samples < 1 or max_new_tokens < 1 or not temperature >= 0:
        raise InputError(
            "num_samples and max_new_tokens must be at least 1 and temperature at least 0, "
            f"got {num_samples}, {max_new_tokens} and {temperature}"
        )
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise InputError(f"prompt {i} is empty; a prompt needs at least one token")
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise InputError(f"prompt {i} has a token outside the vocabulary of {config.vocab_size}")
        if bucket is not None and len(prompt) - 1 > bucket:
            raise InputError(f"prompt {i} has {len(prompt)} tokens, more than bucket={bucket} + 1")
