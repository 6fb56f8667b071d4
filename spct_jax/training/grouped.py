"""Groups of equal size: one call of the sampler for G completions of each prompt, as RL and rejection sampling want them.

Rows (prompts) and branches per call are fixed by the caller, never by what else is in the queue, so a prompt's tokens
depend on its own content, id and the seed only.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spct_jax import distributed
from spct_jax.data import batches
from spct_jax.grm import orders
from spct_jax.models.config import ModelConfig
from spct_jax.sampling.generate import Completions, branch_keys, check_finite, draw
from spct_jax.sharding import Layout


@dataclasses.dataclass(frozen=True)
class Limits:
    """Shapes and stop set of every program of a run."""

    max_prompt: int
    max_completion: int
    stop_ids: tuple[int, ...]


@jax.jit
def _fold(key: jax.Array, hashes: jax.Array, samples: jax.Array) -> jax.Array:
    comparison_keys = jax.vmap(lambda h: jax.random.fold_in(key, h))(hashes)
    return branch_keys(comparison_keys, samples)


def sample_keys(key: jax.Array, ids: Sequence[str], samples: int, repeats: Sequence[int]) -> jax.Array:
    """Keys [B G] of G samples of each comparison: `key` folded with its id, then with the sample's number.

    `repeats` says how often each row's id came up before; such a row's samples go on where those of the last one ended.
    """
    hashes = np.array([orders.stable_hash(i) for i in ids], np.uint32)
    return _fold(key, hashes, np.add.outer(np.array(repeats) * samples, np.arange(samples)))


def draw_rows(
    layout: Layout,
    params: Any,
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    keys: jax.Array,
    *,
    rows: int,
    temperature: float,
    limits: Limits,
) -> Completions:
    """One call of the sampler on up to `rows` prompts, padded to exactly `rows`; NumPy arrays come back, padding off.

    Args:
      layout: of the rollout.
      params: from `Run.to_draw_with`.
      config: the architecture.
      prompts: token ids.
      keys: one per branch, [B G].
      rows: B, a multiple of the parts that the layout splits rows into.
      temperature: 0, or less than 1e-5, is greedy.
      limits: shapes and terminators.

    Raises:
      InputError: logits are not finite.
    """
    count, group_size = keys.shape[:2]
    spare = rows - count
    tokens, lengths, last = batches.pack_prompts([*prompts, *[[0]] * spare], limits.max_prompt)
    active = np.broadcast_to(np.arange(rows)[:, None] < count, (rows, group_size))
    keys = jnp.concatenate([keys, jnp.broadcast_to(keys[:1], (spare, group_size))]) if spare else keys
    out = draw(
        params,
        *layout.split((tokens, lengths, last, keys, active)),
        temperature,
        layout=layout,
        config=config,
        max_new_tokens=limits.max_completion,
        stop_ids=limits.stop_ids,
    )
    out = jax.tree.map(lambda x: x[:count], distributed.fetch(out))
    check_finite(out.logprobs)
    return out


def drawn_tokens(out: Completions) -> list[list[np.ndarray]]:
    """[B][G] arrays Int32[T] of tokens, terminator included; views of `out`."""
    return [
        [tokens[:length] for tokens, length in zip(group, lengths, strict=True)]
        for group, lengths in zip(out.tokens, out.lengths, strict=True)
    ]
