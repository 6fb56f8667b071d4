"""The sampling kernel: the next C tokens of every branch.

Token t of sample s of prompt b is drawn with `fold_in(fold_in(key_b, s), t)`, so more samples, a longer limit or other prompts
in the batch change nothing in a completion. Letters of shapes are those of `spct_jax.models.decoder`.
"""

import flax
import jax
import jax.numpy as jnp
from jax import lax

from spct_jax import models
from spct_jax.sampling.params import SamplingParams
from spct_jax.sampling.token import sample_token

CHUNK = 8
"""C, tokens decoded between two flushes of the cache, and between two checks for ended branches."""


@flax.struct.dataclass
class Completions:
    """Samples and their log-probabilities.

    Attributes:
      tokens: Int32[B G T], 0 after the end.
      lengths: Int32[B G], the terminator included.
      logprobs: Float32[B G T], of each token under the distribution it was drawn from (at temperature 0, under the one
        of temperature 1); 0 after the end.
    """

    tokens: jax.Array
    lengths: jax.Array
    logprobs: jax.Array


@flax.struct.dataclass
class Slots:
    """B rows of G branches that are being drawn.

    Attributes:
      trunks: U of them in every row; see `models.decode`.
      cache: the branches' keys and values.
      trunk_slot: Int32[B G], which trunk of its row a branch belongs to.
      keys: [B G], one per branch.
      last: Int32[B G], the token to read next.
      lengths: Int32[B G], tokens drawn; a multiple of C while a branch runs.
      done: Bool[B G], whether the branch has ended or there is none.
    """

    trunks: tuple[models.Trunk, ...]
    cache: models.Cache
    trunk_slot: jax.Array
    keys: jax.Array
    last: jax.Array
    lengths: jax.Array
    done: jax.Array


def draw_chunk(
    params: models.Params, config: models.ModelConfig, slots: Slots, sampling: SamplingParams, max_new_tokens: int
) -> tuple[Slots, Completions]:
    """Draws the next C tokens of every running branch, or fewer if all of them end sooner.

    Args:
      params: the model's parameters.
      config: the architecture.
      slots: the branches.
      sampling: how tokens are drawn.
      max_new_tokens: T, where completions are cut.

    Returns:
      (the slots afterwards, `Completions` of these C tokens only).
    """
    B, G = slots.done.shape
    C = jax.tree.leaves(slots.cache.recent)[0].shape[-2]
    stops = jnp.asarray(sampling.stop_ids, jnp.int32)
    past = jnp.where(slots.done, 0, slots.lengths)

    def step(state):
        column, last, done, cache, out = state
        positions = past + column
        hidden, cache = models.decode(params, config, slots.trunks, last, cache, past, column, slots.trunk_slot)
        # One axis for all branches: a TPU pads the last but one of logits to a multiple of eight.
        logits = models.unembed(params, config, hidden.reshape(B * G, -1))
        drawn = sample_token(logits, slots.keys.reshape(-1), positions.reshape(-1), sampling)
        token, logprob = (jnp.where(done, 0, x.reshape(B, G)) for x in drawn)
        out = Completions(
            tokens=lax.dynamic_update_index_in_dim(out.tokens, token, column, axis=2),
            lengths=out.lengths + ~done,
            logprobs=lax.dynamic_update_index_in_dim(out.logprobs, logprob, column, axis=2),
        )
        done |= (token[..., None] == stops).any(-1) | (positions + 1 >= max_new_tokens)
        return column + 1, token, done, cache, out

    state = (jnp.int32(0), slots.last, slots.done, slots.cache, _nothing(B, G, C))
    _, last, done, cache, out = lax.while_loop(lambda s: (s[0] < C) & ~s[2].all(), step, state)
    cache = models.flush(cache, past)
    return slots.replace(cache=cache, last=last, lengths=slots.lengths + out.lengths, done=done), out


def _nothing(B: int, G: int, T: int) -> Completions:
    return Completions(
        tokens=jnp.zeros((B, G, T), jnp.int32),
        lengths=jnp.zeros((B, G), jnp.int32),
        logprobs=jnp.zeros((B, G, T), jnp.float32),
    )
