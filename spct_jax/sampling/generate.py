"""Completions of a list of prompts, all of them at once."""

import collections
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt32

from spct_jax import models, sharding
from spct_jax.data.batches import padded_length, shared_tokens
from spct_jax.errors import InputError
from spct_jax.rounding import next_power_of_two
from spct_jax.sampling.engine import Engine, Finished, Request
from spct_jax.sampling.engine_params import decode_model, decode_params
from spct_jax.sampling.engine_shape import Shape, shared
from spct_jax.sampling.kernel import Completions
from spct_jax.sampling.params import SamplingParams


def generate(
    params: models.Params,
    config: models.ModelConfig,
    prompts: Sequence[Sequence[int]],
    key: Key[Array, "*keys"] | UInt32[Array, "*keys words"],
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    stop_ids: Sequence[int] = (1,),
    top_k: int = 0,
    top_p: float = 1.0,
    bucket: int | None = None,
    preamble: Sequence[int] = (),
) -> Completions:
    """Draws `num_samples` completions of every prompt.

    Prompts of one trunk shape are drawn together, in rows for a power of two of them: calls with 5 to 8 share their programs.

    Args:
      params: the model's parameters.
      config: the architecture.
      prompts: B non-empty lists of token ids.
      key: one key, folded with the index of the prompt, or an array of B keys.
      num_samples: G; sample s of a prompt is the same whatever G is.
      max_new_tokens: T, where completions are cut.
      temperature: divides the capped logits; 0, or less than 1e-5, is greedy.
      stop_ids: terminators; the one that ends a completion is part of it.
      top_k: draw from the top_k likeliest tokens only; 0 for all.
      top_p: draw from the likeliest tokens that together have at least this probability, among the top_k; 1 for all.
        Log-probabilities are those of the distribution that is left.
      bucket: trunk shape for all prompts; None for each prompt's own (`padded_length`).
      preamble: tokens that prompts begin with, which are computed once for all that do, if they are enough to be worth it
        (`engine_shape.LEAST_SHARED`); a prompt's own shape is then that of what follows them.

    Returns:
      `Completions` with tokens Int32[B G T], lengths Int32[B G] and logprobs Float32[B G T].

    Raises:
      InputError: no prompts, an empty prompt, a token that is no integer or outside the vocabulary, a prompt longer than
        `bucket`, a wrong number of keys, a number out of range, more tokens than the model has positions, or logits that are
        not finite.
    """
    _check(config, prompts, num_samples, max_new_tokens, temperature, bucket)
    sampling = SamplingParams(temperature, tuple(stop_ids), top_k, top_p)
    keys = _prompt_keys(key, len(prompts))
    params = jax.tree.map(jnp.asarray, params)
    layout = sharding.layout_of(params)
    params, config = decode_params(params, config, layout), decode_model(layout, config)[1]
    by_bucket = collections.defaultdict(list)
    for i, prompt in enumerate(prompts):
        request = Request(i, prompt, keys[i], collections.deque(range(num_samples)))
        before = shared(shared_tokens(prompt, preamble), len(prompt))
        by_bucket[bucket or before + padded_length(len(prompt) - 1 - before)].append(request)
    finished = []
    for P, requests in sorted(by_bucket.items()):
        # Programs are compiled for few numbers of prompts, and the slots of prompts that are not there stay idle.
        groups = P + 1, max_new_tokens, next_power_of_two(len(requests)), num_samples
        shape = Shape.of_groups(*groups, devices=layout.batch_shards, preamble=len(preamble))
        finished += Engine(layout, params, config, shape, sampling, preamble=preamble).run(requests)
    return _joined(finished, len(prompts), num_samples, max_new_tokens)


def _joined(finished: Sequence[Finished], B: int, G: int, T: int) -> Completions:
    tokens, lengths, logprobs = np.zeros((B, G, T), np.int32), np.zeros((B, G), np.int32), np.zeros((B, G, T), np.float32)
    for one in finished:
        at, length = (one.request.tag, one.sample), len(one.tokens)
        lengths[at], tokens[at][:length], logprobs[at][:length] = length, one.tokens, one.logprobs
    return jax.tree.map(jnp.asarray, Completions(tokens=tokens, lengths=lengths, logprobs=logprobs))


def _prompt_keys(key: Key[Array, "*keys"] | UInt32[Array, "*keys words"], B: int) -> UInt32[np.ndarray, "B words"]:
    """Key data of every prompt."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim == 0:
        key = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(B))
    if key.shape != (B,):
        raise InputError(f"generate needs one key or {B} keys, got shape {key.shape}")
    return np.asarray(jax.random.key_data(key))


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
        models.check_tokens(config, np.asarray(prompt), f"prompt {i}")
        if bucket is not None and len(prompt) - 1 > bucket:
            raise InputError(f"prompt {i} has {len(prompt)} tokens, more than bucket={bucket} + 1")
    config.check_length(max(map(len, prompts)), max_new_tokens, "the longest prompt and max_new_tokens")
