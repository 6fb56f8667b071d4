"""The sampling kernel: each prompt's trunk is computed once, all of its branches are decoded together.

Token t of sample s of prompt b is drawn with `fold_in(fold_in(key_b, s), t)`, so more samples, a longer limit or other
prompts beside it change nothing in a completion. Letters as in `spct_jax.models.decoder`.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spct_jax import models
from spct_jax.data import batches
from spct_jax.errors import InputError
from spct_jax.models import logprobs
from spct_jax.sharding import Program, logical

UNROLLED_LAYERS = 8
"""Stacks up to this deep are decoded without a scan over layers."""

CHUNK = 8
"""C, tokens decoded between two moves of the caches, and two looks at which branches have ended."""


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


@jax.jit
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


def truncated(logits: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """Logits [.. V] with all but the likeliest tokens at minus infinity; equally likely ones stay or go together.

    Args:
      logits: already divided by the temperature.
      top_k: how many are kept; 0 for all.
      top_p: the least total probability of those kept, among the top_k; 1 for all.
    """
    V = logits.shape[-1]
    if not 0 < top_k < V and top_p >= 1:
        return logits
    kept = lax.top_k(logits, top_k if 0 < top_k < V else V)[0]
    if top_p < 1:
        weights = jax.nn.softmax(kept, axis=-1)
        before = jnp.cumsum(weights, axis=-1) - weights
        kept = jnp.where(before < top_p, kept, jnp.inf)
    return jnp.where(logits >= jnp.min(kept, axis=-1, keepdims=True), logits, -jnp.inf)


def _sample(
    logits: jax.Array, keys: jax.Array, times: jax.Array, temperature: jax.Array, top_k: int, top_p: float
) -> tuple[jax.Array, jax.Array]:
    """Token and log-probability, Int32[B G] and Float32[B G], from logits [B G V], keys [B G] and times Int[B G]."""

    def uniform(key, t):
        return jax.random.uniform(jax.random.fold_in(key, t))

    scaled = truncated(logits / logprobs.divisor(temperature), top_k, top_p)
    peak = jnp.max(scaled, axis=-1, keepdims=True)
    weights = jnp.exp(scaled - peak)
    token = lax.cond(
        temperature >= logprobs.GREEDY_BELOW,
        lambda: inverse_cdf(weights, jax.vmap(jax.vmap(uniform))(keys, times)),
        lambda: jnp.argmax(scaled, axis=-1),
    ).astype(jnp.int32)
    chosen = jnp.take_along_axis(scaled, token[..., None], axis=-1) - peak
    return token, chosen[..., 0] - jnp.log(jnp.sum(weights, axis=-1))


@flax.struct.dataclass
class Slots:
    """B rows of G branches that are being drawn.

    Attributes:
      trunks: U of them in every row; see `models.decode`.
      cache: what the branches have written.
      place: Int32[B G], which trunk of its row a branch belongs to.
      keys: [B G], one per branch.
      last: Int32[B G], the token to read next.
      lengths: Int32[B G], tokens drawn; a multiple of C while a branch runs.
      done: Bool[B G], whether the branch has ended or there is none.
    """

    trunks: tuple[models.Trunk, ...]
    cache: models.Cache
    place: jax.Array
    keys: jax.Array
    last: jax.Array
    lengths: jax.Array
    done: jax.Array


def run_chunk(
    params: models.Params,
    config: models.ModelConfig,
    slots: Slots,
    temperature: jax.Array,
    limit: int,
    *,
    stop_ids: tuple[int, ...],
    top_k: int = 0,
    top_p: float = 1.0,
    base: jax.Array | None = None,
) -> tuple[Slots, Completions]:
    """Draws the next C tokens of every branch that runs, or fewer if all end before.

    Args:
      params: the model's parameters.
      config: the architecture.
      slots: the branches.
      temperature: divides the capped logits; 0, or less than 1e-5, is greedy.
      limit: where completions are cut.
      stop_ids: terminators; the one that ends a completion is part of it.
      top_k: see `truncated`.
      top_p: see `truncated`.
      base: the length of all branches that run, where they all started together; saves moving their caches one by one.

    Returns:
      (the branches afterwards, the C tokens as `Completions` of their own).
    """
    B, G = slots.done.shape
    C = jax.tree.leaves(slots.cache.recent)[0].shape[-2]
    stops = jnp.asarray(stop_ids, jnp.int32)
    past = jnp.where(slots.done, 0, slots.lengths)

    def step(state):
        column, last, done, cache, out = state
        times = past + column
        hidden, cache = models.decode(params, config, slots.trunks, last, cache, past, column, slots.place)
        logits = models.unembed(params, config, hidden)
        token, logprob = _sample(logits, slots.keys, times, temperature, top_k, top_p)
        token, logprob = jnp.where(done, 0, token), jnp.where(done, 0.0, logprob)
        out = Completions(
            tokens=lax.dynamic_update_index_in_dim(out.tokens, token, column, axis=2),
            lengths=out.lengths + ~done,
            logprobs=lax.dynamic_update_index_in_dim(out.logprobs, logprob, column, axis=2),
        )
        done |= (token[..., None] == stops).any(-1) | (times + 1 >= limit)
        return column + 1, token, done, cache, out

    state = (jnp.int32(0), slots.last, slots.done, slots.cache, _nothing(B, G, C))
    _, last, done, cache, out = lax.while_loop(lambda s: (s[0] < C) & ~s[2].all(), step, state)
    cache = models.flush(cache, past if base is None else base)
    return slots.replace(cache=cache, last=last, lengths=slots.lengths + out.lengths, done=done), out


def _nothing(B: int, G: int, T: int) -> Completions:
    return Completions(
        tokens=jnp.zeros((B, G, T), jnp.int32),
        lengths=jnp.zeros((B, G), jnp.int32),
        logprobs=jnp.zeros((B, G, T), jnp.float32),
    )


def _draw(
    params: models.Params,
    trunk_tokens: jax.Array,
    trunk_lengths: jax.Array,
    last_tokens: jax.Array,
    keys: jax.Array,
    active: jax.Array | None,
    temperature: jax.Array | float,
    *,
    config: models.ModelConfig,
    max_new_tokens: int,
    stop_ids: tuple[int, ...],
    top_k: int = 0,
    top_p: float = 1.0,
    chunk: int = CHUNK,
) -> Completions:
    """Draws G completions of each of B prompts; compiled once per shapes.

    Args:
      params: the model's parameters.
      trunk_tokens: Int[B P], the prompts without their last token, right-aligned.
      trunk_lengths: Int[B], tokens in each trunk, 0 to P.
      last_tokens: Int[B], the last token of each prompt.
      keys: [B G], from `branch_keys`.
      active: Bool[B G]; branches that are not come back empty; None for all.
      temperature: divides the capped logits; 0, or less than 1e-5, is greedy.
      config: the architecture.
      max_new_tokens: T, where completions are cut.
      stop_ids: terminators; the one that ends a completion is part of it.
      top_k: draw from the top_k likeliest tokens only; 0 for all.
      top_p: draw from the likeliest tokens that together have this probability; 1 for all.
      chunk: C, tokens between two moves of the caches; changes nothing in a completion but the order of sums.

    Returns:
      The `Completions`.
    """
    B, G = keys.shape
    params = logical.cast(params, config.dtype)
    temperature = jnp.asarray(temperature, jnp.float32)
    if config.num_layers <= UNROLLED_LAYERS:
        params, config = models.unroll(params, config)
    slots = Slots(
        trunks=(models.prefill(params, config, trunk_tokens, trunk_lengths),),
        cache=models.init_cache(config, B, G, max_new_tokens, chunk),
        place=jnp.zeros((B, G), jnp.int32),
        keys=keys,
        last=jnp.broadcast_to(last_tokens[:, None], (B, G)).astype(jnp.int32),
        lengths=jnp.zeros((B, G), jnp.int32),
        done=jnp.zeros((B, G), bool) if active is None else ~active,
    )
    slots = logical.constrain_batch(slots)

    def next_chunk(state):
        base, slots, out = state
        slots, new = run_chunk(
            params,
            config,
            slots,
            temperature,
            max_new_tokens,
            stop_ids=stop_ids,
            top_k=top_k,
            top_p=top_p,
            base=base,
        )
        out = Completions(
            tokens=lax.dynamic_update_slice_in_dim(out.tokens, new.tokens, base, axis=2),
            lengths=slots.lengths,
            logprobs=lax.dynamic_update_slice_in_dim(out.logprobs, new.logprobs, base, axis=2),
        )
        return base + chunk, slots, out

    # A whole number of chunks, or the last one would be written over the one before it.
    out = _nothing(B, G, -(-max_new_tokens // chunk) * chunk)
    _, _, out = lax.while_loop(lambda s: ~s[1].done.all(), next_chunk, (jnp.int32(0), slots, out))
    return out.replace(tokens=out.tokens[..., :max_new_tokens], logprobs=out.logprobs[..., :max_new_tokens])


draw = Program(_draw, ("params", *("batch",) * 5, "replicated"), lambda layout, *_, **__: layout.sharding("batch"))


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
    top_k: int = 0,
    top_p: float = 1.0,
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
      temperature: divides the capped logits; 0, or less than 1e-5, is greedy.
      stop_ids: terminators; the one that ends a completion is part of it.
      top_k: draw from the top_k likeliest tokens only; 0 for all.
      top_p: draw from the likeliest tokens that together have this probability; 1 for all. Log-probabilities are those of
        the distribution that is left.
      bucket: trunk shape for all prompts; None takes each prompt's own from the fixed table (`batches.padded_length`).

    Returns:
      `Completions` with tokens Int32[B G T], lengths Int32[B G] and logprobs Float32[B G T].

    Raises:
      InputError: no prompts, an empty prompt, a token outside the vocabulary, a prompt longer than `bucket`, a wrong
        number of keys, a number out of range, or logits that are not finite.
    """
    _check(config, prompts, num_samples, max_new_tokens, temperature, bucket)
    check_truncation(top_k, top_p)
    B = len(prompts)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim == 0:
        key = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(B))
    if key.shape != (B,):
        raise InputError(f"generate needs one key or {B} keys, got shape {key.shape}")
    keys = branch_keys(key, jnp.broadcast_to(jnp.arange(num_samples), (B, num_samples)))

    buckets = np.array([bucket or batches.padded_length(len(prompt) - 1) for prompt in prompts])
    parts, order = [], []
    for P in sorted(set(buckets.tolist())):
        rows = np.flatnonzero(buckets == P)
        trunk_tokens = np.zeros((len(rows), P), np.int32)
        for row, trunk in zip(trunk_tokens, (prompts[i][:-1] for i in rows), strict=True):
            row[P - len(trunk) :] = trunk
        parts.append(
            draw(
                params,
                trunk_tokens,
                np.array([len(prompts[i]) - 1 for i in rows], np.int32),
                np.array([prompts[i][-1] for i in rows], np.int32),
                keys[rows],
                None,
                temperature,
                config=config,
                max_new_tokens=max_new_tokens,
                stop_ids=tuple(stop_ids),
                top_k=top_k,
                top_p=top_p,
            )
        )
        order.extend(rows.tolist())
    for part in parts:
        check_finite(part.logprobs)
    if len(parts) == 1:
        return parts[0]
    back = np.argsort(order)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[back], *parts)


def check_finite(logprobs: jax.Array | np.ndarray) -> None:
    """Raises InputError if log-probabilities of drawn tokens are not finite, as they are where no logit is NaN."""
    if not np.isfinite(logprobs).all():
        raise InputError(
            "the model's logits are NaN or infinite: its weights, or a dtype too narrow for it, are the likely cause"
        )


def check_truncation(top_k: int, top_p: float) -> None:
    """Raises InputError if they are out of range."""
    if top_k < 0 or not 0 < top_p <= 1:
        raise InputError(f"top_k must be at least 0 and top_p above 0 and at most 1, got {top_k} and {top_p}")


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
