"""Log-probabilities and entropies over a large vocabulary, a block of its tokens at a time, for all positions at once.

A part of the positions at a time, as `spct_jax.models.logprobs` goes where vocabularies are small, would hold a gradient as
large as the output table beside the sum of those before it, and read and write that sum once a part. Here each row of the
gradient is computed once, where it belongs, and no more logits exist than those of a block.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from spct_jax.models import decoder
from spct_jax.models.config import ModelConfig
from spct_jax.rounding import ceil_div
from spct_jax.sharding import logical

LARGE = 1 << 16
"""Vocabularies of more tokens than this are taken in blocks."""
DIVISOR = 64
"""A vocabulary is taken in blocks only if this divides it: of a prime number of tokens, each would be a block."""
LANES = 128
"""Tokens that a TPU holds side by side."""


def are_used(config: ModelConfig) -> bool:
    """Whether the program being traced takes the vocabulary in blocks: if it is large, has equal ones and, except on CPUs, is
    not split over devices.
    """
    suited = config.vocab_size > LARGE and config.vocab_size % DIVISOR == 0
    return suited and (logical.platform() == "cpu" or not logical.is_split(config.vocab_size, "vocab"))


def count(vocab_size: int, positions: int, at_once: int) -> int:
    """The least number of equal blocks with at most `at_once` logits at all positions; of whole `LANES`, if these are not
    smaller than half of what is allowed.
    """
    least = max(ceil_div(vocab_size * positions, at_once), 1)
    equal = [n for n in range(least, vocab_size) if vocab_size % n == 0]
    whole = (n for n in equal if n <= 2 * least and vocab_size // n % LANES == 0)
    return next(whole, equal[0] if equal else vocab_size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def logprobs_and_entropies(
    config: ModelConfig,
    at_once: int,
    table: Float[Array, "V D"],
    temperature: Float[Array, ""],
    hidden: Float[Array, "N D"],
    targets: Int[Array, " N"],
) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
    """Log-probabilities of targets under softmax(logits / temperature), and entropies of these distributions; float32.

    Args:
      config: the architecture.
      at_once: logits of a block at most, all positions together; `Tiles.logits`.
      table: of the logits, see `decoder.output_table`.
      temperature: divides the capped logits; no gradient flows to it.
      hidden: hidden states after the final norm.
      targets: a token at each position.
    """
    return _forward(config, at_once, table, temperature, hidden, targets)[0]


def _forward(config, at_once, table, temperature, hidden, targets):
    def add(sums, block):
        """Of scaled logits x in the blocks so far: their peak, sums of exp(x - peak) and (x - peak) exp(x - peak), own x."""
        peak, total, weighted, own = sums
        first, rows = block
        scaled = _scaled(config, rows, temperature, hidden, first)
        new_peak = jnp.maximum(peak, jnp.max(scaled, axis=-1))
        weights, fewer = jnp.exp(scaled - new_peak[:, None]), jnp.exp(peak - new_peak)
        weighted = fewer * (weighted + (peak - new_peak) * total) + (weights * (scaled - new_peak[:, None])).sum(-1)
        at = targets - first
        found = jnp.take_along_axis(scaled, jnp.clip(at, 0, len(rows) - 1)[:, None], axis=-1)[:, 0]
        own = jnp.where((at >= 0) & (at < len(rows)), found, own)
        return (new_peak, total * fewer + weights.sum(-1), weighted, own), None

    zero = jnp.zeros(len(hidden), jnp.float32)
    lowest = jnp.full_like(zero, jnp.finfo(jnp.float32).min / 2)
    (peak, total, weighted, own), _ = lax.scan(add, (lowest, zero, zero, zero), _blocks(table, len(hidden), at_once))
    norm, entropies = peak + jnp.log(total), jnp.log(total) - weighted / total
    return (own - norm, entropies), (table, temperature, hidden, targets, norm, entropies)


def _backward(config, at_once, kept, gradients):
    table, temperature, hidden, targets, *sums = kept
    norm, entropies, of_logprobs, of_entropies = (x[:, None] for x in (*sums, *gradients))

    def add(of_hidden, block):
        first, rows = block
        scaled, pull = jax.vjp(lambda rows, hidden: _scaled(config, rows, temperature, hidden, first), rows, hidden)
        logprobs = scaled - norm
        weights = jnp.exp(logprobs)
        is_target = first + jnp.arange(len(rows)) == targets[:, None]
        of_rows, more = pull(of_logprobs * (is_target - weights) - of_entropies * weights * (logprobs + entropies))
        return of_hidden + more, of_rows

    of_hidden, of_rows = lax.scan(add, jnp.zeros(hidden.shape, jnp.float32), _blocks(table, len(hidden), at_once))
    return of_rows.reshape(table.shape), jnp.zeros_like(temperature), of_hidden.astype(hidden.dtype), None


logprobs_and_entropies.defvjp(_forward, _backward)


def _blocks(table: jax.Array, positions: int, at_once: int) -> tuple[jax.Array, jax.Array]:
    """(number of the first token, rows of the table) of every block."""
    number = count(len(table), positions, at_once)
    rows = table.reshape(number, -1, table.shape[-1])
    return jnp.arange(number) * rows.shape[1], rows


def _scaled(config, rows, temperature, hidden, first):
    # Gradients are traced after the function, when the constraints that hold within its `shard_map` do so no more.
    with logical.constraints(None):
        return decoder.unembed_with(rows, config, hidden, first) / temperature
