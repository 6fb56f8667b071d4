"""Causal attention within trunks by splash attention, a Pallas kernel for TPUs.

`spct_jax.models.trunk_attention` computes the same by XLA and is the reference. Letters as in `spct_jax.models.decoder`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from spct_jax.models.config import ModelConfig
from spct_jax.models.trunk_attention import Block
from spct_jax.rounding import ceil_div
from spct_jax.sharding import logical

LANES = 128
"""A head dim must be a multiple of this."""

BLOCKS = (512, 256, LANES)
"""Queries, and keys, of a block of the kernel; blocks in which no query sees a key are skipped."""


def is_used(config: ModelConfig) -> bool:
    """Whether trunks attend by the kernel on the platform at hand, see `logical.platform`."""
    asked = config.attention == "splash" or (config.attention == "auto" and config.head_dim % LANES == 0)
    return asked and logical.platform() == "tpu"


def kernels() -> ModuleType:
    """JAX's splash attention, loaded only where it is used: most programs do without, and loading Pallas takes time."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    return splash_attention


def attend_trunk(
    q: Float[Array, "B K M P H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    lengths: Int[Array, " B"],
    window: int | None,
    cap: float,
    *,
    interpret: bool = False,
) -> Float[Array, "B K M P H"]:
    """Causal attention within right-aligned trunks, every device on its own trunks and heads.

    Args:
      q: queries of the last P slots, already scaled; P is S where trunks have no prefix, and H a multiple of 128 on a TPU.
      k: keys.
      v: values.
      lengths: tokens in each trunk, prefix included.
      window: keys a query sees, itself included; None for all.
      cap: soft cap on the scores, 0 for none.
      interpret: run the kernel's arithmetic by XLA, on any device.

    Returns:
      Float32; padding slots hold finite numbers without meaning.
    """
    (P, S), T = (q.shape[-2], padded(k.shape[-2])), padded(q.shape[-2])
    # Padding is a segment of its own: its queries see themselves, so that none of them sees no key.
    segments = (jnp.arange(S) >= S - lengths[:, None]).astype(jnp.int32)

    def local(q, k, v, segments):
        q, k, v = (
            jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(slots - x.shape[-2], 0), (0, 0)]) for x, slots in ((q, T), (k, S), (v, S))
        )
        B, K, M, _, H = q.shape
        kernel = _kernel(K * M, T, S, window, cap, interpret)
        out = jax.vmap(lambda q, k, v, s: kernel(q, k, v, segment_ids=kernels().SegmentIds(s[S - T :], s)))(
            q.reshape(B, K * M, T, H), k, v, segments
        )
        return out.reshape(q.shape)[..., T - P :, :].astype(jnp.float32)

    keys = ("batch", "kv_heads")
    return logical.shard_map(local, ((*keys, "heads_per_kv"), keys, keys, ("batch",)), q, k, v, segments)


def padded(length: int) -> int:
    """So many queries, or keys, with padding: a multiple of the block that takes the least time.

    All of a block is computed, and for every block of queries all keys are read again: 256 queries to a key are about as many
    as a chip multiplies while it reads it. So a slot in a block of b counts 1 + 128 / b.
    """
    sizes = [(ceil_div(length, block) * block, block) for block in BLOCKS]
    return min((size * (1 + LANES / block), size) for size, block in sizes)[1]


def block_size(slots: int) -> int:
    """Queries, or keys, of a block, where there are `slots` of them with padding."""
    return next(block for block in BLOCKS if slots % block == 0)


def query_blocks(length: int, window: int | None, prefix: int = 0) -> list[Block]:
    """As `trunk_attention.query_blocks`, of the blocks here; queries and keys are padded, and slots counted from there."""
    T, S = padded(length), padded(prefix + length)
    of_queries, of_keys = block_size(T), block_size(S)
    blocks = []
    for start in range(S - T, S, of_queries):
        first = max(0, start + 1 - window) // of_keys * of_keys if window else 0
        last = ceil_div(start + of_queries, of_keys) * of_keys
        blocks.append(Block(range(start, start + of_queries), range(first, last)))
    return blocks


def block_sizes(of_queries: int, of_keys: int) -> Any:
    """`BlockSizes` of the same blocks for all passes of a kernel, forward and backward."""
    return kernels().BlockSizes(
        block_q=of_queries,
        block_kv=of_keys,
        block_kv_compute=of_keys,
        block_q_dkv=of_queries,
        block_kv_dkv=of_keys,
        block_kv_dkv_compute=of_keys,
        block_q_dq=of_queries,
        block_kv_dq=of_keys,
    )


def _kernel(heads: int, T: int, S: int, window: int | None, cap: float, interpret: bool):
    """For the last T of S slots."""
    causal, splash = window is None, kernels()
    mask = splash.CausalMask((T, S), S - T) if causal else splash.LocalMask((T, S), (window - 1, 0), S - T)
    return splash.make_splash_mha_single_device(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=block_sizes(block_size(T), block_size(S)),
        attn_logits_soft_cap=cap or None,
        interpret=interpret,
    )
