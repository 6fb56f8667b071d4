"""Causal attention within trunks by splash attention, a Pallas kernel for TPUs.

`spct_jax.models.trunk_attention` computes the same by XLA and is the reference. Letters as in `spct_jax.models.decoder`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Array, Float, Int

from spct_jax.models.config import ModelConfig
from spct_jax.sharding import logical

LANES = 128
"""Trunks are padded to a multiple of this; a head dim must be one."""


def is_used(config: ModelConfig) -> bool:
    """Whether trunks attend by the kernel on the platform at hand, see `logical.platform`."""
    asked = config.attention == "splash" or (config.attention == "auto" and config.head_dim % LANES == 0)
    return asked and logical.platform() == "tpu"


def attend_trunk(
    q: Float[Array, "B K M P H"],
    k: Float[Array, "B K P H"],
    v: Float[Array, "B K P H"],
    lengths: Int[Array, " B"],
    window: int | None,
    cap: float,
    *,
    interpret: bool = False,
) -> Float[Array, "B K M P H"]:
    """Causal attention within right-aligned trunks, every device on its own trunks and heads.

    Args:
      q: queries, already scaled; H a multiple of 128 on a TPU.
      k: keys.
      v: values.
      lengths: tokens in each trunk.
      window: keys a query sees, itself included; None for all.
      cap: soft cap on the scores, 0 for none.
      interpret: run the kernel's arithmetic by XLA, on any device.

    Returns:
      Float32; padding slots hold finite numbers without meaning.
    """
    P = q.shape[-2]
    spare = -P % LANES
    slots = jnp.arange(P + spare)
    # Padding is a segment of its own: its queries see themselves, so that none of them sees no key.
    segments = (slots >= P + spare - lengths[:, None]).astype(jnp.int32)

    def local(q, k, v, segments):
        q, k, v = (jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(spare, 0), (0, 0)]) for x in (q, k, v))
        B, K, M, T, H = q.shape
        kernel = _kernel(K * M, T, window, cap, interpret)
        out = jax.vmap(lambda q, k, v, s: kernel(q, k, v, segment_ids=splash.SegmentIds(s, s)))(
            q.reshape(B, K * M, T, H), k, v, segments
        )
        return out.reshape(q.shape)[..., spare:, :].astype(jnp.float32)

    keys = ("batch", "kv_heads")
    return logical.shard_map(local, ((*keys, "heads_per_kv"), keys, keys, ("batch",)), q, k, v, segments)


def block_size(length: int) -> int:
    """Queries, and keys, of a block of the kernel for a padded trunk; blocks in which no query sees a key are skipped."""
    return next(size for size in (512, 256, LANES) if length % size == 0)


def query_blocks(length: int, window: int | None) -> list[tuple[int, int, int]]:
    """As `trunk_attention.query_blocks`, of the blocks here: (first query, one past the last query and key, first key)."""
    padded = length + -length % LANES
    size = block_size(padded)
    firsts = range(0, padded, size)
    return [(first, first + size, max(0, first + 1 - window) // size * size if window else 0) for first in firsts]


def _kernel(heads: int, T: int, window: int | None, cap: float, interpret: bool):
    mask = splash.CausalMask((T, T)) if window is None else splash.LocalMask((T, T), (window - 1, 0), 0)
    block = block_size(T)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    return splash.make_splash_mha_single_device(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        attn_logits_soft_cap=cap or None,
        interpret=interpret,
    )
