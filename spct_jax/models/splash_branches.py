"""Attention of branches, at all their positions, by splash attention: one sequence of a trunk and all of its branches.

`spct_jax.models.attention.attend_branch` computes the same by XLA and is the reference. Letters as in
`spct_jax.models.decoder`; Q = G T queries, padded, see S trunk slots, padded, and Q keys of the branches.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from spct_jax.models import attention
from spct_jax.models.places import Places
from spct_jax.models.splash import block_size, block_sizes, kernels, padded
from spct_jax.sharding import logical


def attend_branch(
    q: Float[Array, "B G K M T H"],
    trunk: tuple[Float[Array, "B K S H"], Float[Array, "B K S H"]],
    branch: tuple[Float[Array, "B G K T H"], Float[Array, "B G K T H"]],
    lengths: Int[Array, " B"],
    places: Places | None,
    window: int | None,
    cap: float,
    *,
    interpret: bool = False,
) -> Float[Array, "B G K M T H"]:
    """Attention of branches to their trunk and to themselves, every device on its own rows and heads.

    Which keys a query sees is known while the program is traced, but for the padding of trunks; or, where completions lie one
    behind the other, it depends on data and the kernel reads it.

    Args:
      q: queries, already scaled; H a multiple of 128 on a TPU.
      trunk: its keys and values.
      branch: keys and values of the branches.
      lengths: tokens in each trunk.
      places: where completions lie that are one branch together, see `decoder.extend`.
      window: keys a query sees, itself included; None for all.
      cap: soft cap on the scores, 0 for none.
      interpret: run the kernel's arithmetic by XLA, on any device.

    Returns:
      Float32.
    """
    G, T, S, splash = q.shape[1], q.shape[-2], trunk[0].shape[-2], kernels()
    queries, slots = padded(G * T), padded(S)
    if places is None:
        # What a query must not see of the padding before a trunk is in a segment of its own.
        which = jnp.concatenate(
            [(jnp.arange(slots) >= slots - lengths[:, None]).astype(jnp.int32), jnp.ones((len(q), queries), jnp.int32)], axis=1
        )
    else:
        on_trunk = jnp.broadcast_to(attention.trunk_mask(lengths, S, places.positions, window), (len(q), T, S))
        which = _with_padding(jnp, on_trunk, places.visible(window))

    def local(q, trunk_k, trunk_v, k, v, which):
        B, G, K, M, T, H = q.shape
        spare = [(0, 0), (0, 0), (0, queries - G * T), (0, 0)]
        folded = jnp.pad(jnp.moveaxis(q, 1, 3).reshape(B, K * M, G * T, H), spare)

        def joined(trunk, own):
            own = jnp.pad(jnp.moveaxis(own, 1, 2).reshape(B, K, G * T, H), spare)
            return jnp.concatenate([jnp.pad(trunk, [(0, 0), (0, 0), (slots - S, 0), (0, 0)]), own], axis=2)

        def one_row(q, k, v, which):
            if places is not None:
                return _kernel(which[None], cap, interpret)(q, k, v)
            mask = splash.MultiHeadMask([splash.NumpyMask(_static_mask(G, T, S, window))])
            return _kernel(mask, cap, interpret)(q, k, v, splash.SegmentIds(jnp.ones(queries, jnp.int32), which))

        out = jax.vmap(one_row)(folded, joined(trunk_k, k), joined(trunk_v, v), which)
        return jnp.moveaxis(out[:, :, : G * T].reshape(B, K, M, G, T, H), 3, 1).astype(jnp.float32)

    keys, own = ("batch", "kv_heads"), ("batch", None, "kv_heads")
    return logical.shard_map(local, ((*own, "heads_per_kv"), keys, keys, own, own, ("batch",)), q, *trunk, *branch, which)


def scores(num_branches: int, length: int, trunk_slots: int, window: int | None) -> int:
    """Scores that the kernel computes for each head of a row: the blocks in which some query sees some key."""
    seen = _static_mask(num_branches, length, trunk_slots, window)
    rows, columns = map(block_size, seen.shape)
    blocks = seen.reshape(seen.shape[0] // rows, rows, seen.shape[1] // columns, columns)
    return int(blocks.any((1, 3)).sum()) * rows * columns


@functools.lru_cache(maxsize=8)
def _static_mask(G: int, T: int, S: int, window: int | None) -> Bool[np.ndarray, "Q _"]:
    """Which slots and tokens of G branches their tokens see, if a trunk has no padding."""
    branch, time = np.divmod(np.arange(G * T), T)
    distance = time[:, None] - time
    own = (branch[:, None] == branch) & (distance >= 0) & (distance < (window or T))
    on_trunk = time[:, None] + S - np.arange(S) < (window or S + T + 1)
    return _with_padding(np, on_trunk, own)


def _with_padding(xp: ModuleType, on_trunk: Bool[Any, "*B T S"], own: Bool[Any, "*B T T"]) -> Bool[Any, "*B Q _"]:
    """Masks over padded queries and keys; padding sees itself, so that every query sees a key."""
    (T, S), rows = on_trunk.shape[-2:], [(0, 0)] * (own.ndim - 2)
    queries = padded(T)
    before = xp.pad(on_trunk, [*rows, (0, queries - T), (padded(S) - S, 0)])
    own = xp.pad(own, [*rows, (0, queries - T), (0, queries - T)]) | (xp.eye(queries, dtype=bool) & (xp.arange(queries) >= T))
    return xp.concatenate([before, own], axis=-1)


def _kernel(mask: Any, cap: float, interpret: bool):
    """With one mask for all heads: a `MultiHeadMask`, or Bool[1 Q S] that is traced."""
    kernel = kernels().make_splash_mha_single_device(
        mask, block_sizes=block_sizes(*map(block_size, mask.shape[-2:])), attn_logits_soft_cap=cap or None, interpret=interpret
    )
    # Only a name in profiles depends on it; of a mask that is traced, the library makes a traced value of it and then fails.
    kernel.fwd_mask_info = kernel.fwd_mask_info._replace(is_dynamic_mask=None)
    return kernel
