"""The linen modules of one layer; which keys a query attends to is left to the caller.

Values are rounded to the model's dtype only where they enter a matrix product; everything between is float32. Letters as in
`spct_jax.models.decoder`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from spct_jax.models import quantized, rotary
from spct_jax.models.config import ModelConfig
from spct_jax.models.quantized import Quantized
from spct_jax.sharding import logical


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, x / rms(x) * (1 + scale), in float32."""

    eps: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalises x; the result has `dtype`, by default that of x."""
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        y = x.astype(jnp.float32)
        y = y * lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
        return (y * (1 + scale.astype(jnp.float32))).astype(self.dtype or x.dtype)


class Attention(nn.Module):
    """The projections before and after an attention that the caller gives."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "... T D"], rope: rotary.Tables, attend: Callable
    ) -> tuple[Float[Array, "... _ D"], Any]:
        """Maps x to (float32 [.. T D], what `attend` reports); arguments and T as of `Block`."""
        c = self.config
        M = c.num_heads // c.num_kv_heads
        w = functools.partial(_weight, self, x.dtype)
        q = _to_heads(x, w("q", (c.width, c.num_heads, c.head_dim), c.width))
        k = _to_heads(x, w("k", (c.width, c.num_kv_heads, c.head_dim), c.width))
        v = _to_heads(x, w("v", (c.width, c.num_kv_heads, c.head_dim), c.width))
        if c.qk_norm:
            q, k = RMSNorm(c.norm_eps, name="q_norm")(q), RMSNorm(c.norm_eps, name="k_norm")(k)
        q, k, v = (y.astype(x.dtype) for y in (rotary.rotate(q, rope) * c.query_scale, rotary.rotate(k, rope), v))
        q = q.reshape(*q.shape[:-3], c.num_kv_heads, M, *q.shape[-2:])
        batch = ("batch", *(None,) * (k.ndim - 4))
        q = logical.constrain(q, *batch, "kv_heads", "heads_per_kv")
        k, v = (logical.constrain(y, *batch, "kv_heads") for y in (k, v))
        encoded, report = attend(q, k, v)
        T = encoded.shape[-2]
        encoded = encoded.astype(x.dtype).reshape(*x.shape[:-2], c.num_heads, T, c.head_dim)
        out = w("out", (c.num_heads, c.head_dim, c.width), c.num_heads * c.head_dim)
        merged = jnp.swapaxes(encoded, -2, -3).reshape(*x.shape[:-2], T, c.num_heads * c.head_dim)
        return _project(merged, out.reshape(c.num_heads * c.head_dim, c.width)), report


class FeedForward(nn.Module):
    """Gated feed-forward layer: gelu(x gate) * (x up), projected down."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "... T D"]) -> Float[Array, "... T D"]:
        """Maps x to float32 [.. T D]."""
        D, F = self.config.width, self.config.ffw_width
        w = functools.partial(_weight, self, x.dtype)
        gate, up = _project(x, w("gate", (D, F), D)), _project(x, w("up", (D, F), D))
        return _project((nn.gelu(gate) * up).astype(x.dtype), w("down", (F, D), F))


class Block(nn.Module):
    """One layer: attention and feed-forward, each between a norm before and a norm after, on a residual stream."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "... T D"], rope: rotary.Tables, attend: Callable
    ) -> tuple[Float[Array, "... _ D"], Any]:
        """Applies the layer.

        Args:
          x: the residual stream, float32.
          rope: the tables of the layer's kind, broadcast against [.. N T H/2].
          attend: called with q [.. K M T H] and k, v [.. K T H] after norms, RoPE and scaling; returns
            (float32 [.. K M T H], a report of any kind). Of the last positions only, if what the layer gives for others is
            not wanted.

        Returns:
          (float32 [.. T D] of as many positions as `attend` gave, its report).
        """
        norm = functools.partial(RMSNorm, self.config.norm_eps)
        into = functools.partial(norm, jnp.dtype(self.config.dtype))
        attended, report = Attention(self.config, name="attn")(into(name="pre_attention_norm")(x), rope, attend)
        x = x[..., -attended.shape[-2] :, :] + norm(name="post_attention_norm")(attended)
        fed = FeedForward(self.config, name="mlp")(into(name="pre_ffw_norm")(x))
        return x + norm(name="post_ffw_norm")(fed), report


def _project(x: Float[Array, "... D"], w: Float[Array, "D F"] | Quantized) -> Float[Array, "... F"]:
    """Multiplies x by w, both of the model's dtype or w quantised, as one product of two matrices; float32.

    With more than one leading axis XLA's CPU backend fuses element-wise work into strided copies of the operands of the
    weight's gradient, which then takes three times as long.
    """
    product = quantized.matmul(x.reshape(-1, x.shape[-1]), w)
    return product.reshape(*x.shape[:-1], w.shape[-1])


def _to_heads(x: Float[Array, "... T D"], w: Float[Array, "D N H"] | Quantized) -> Float[Array, "... N T H"]:
    D, N, H = w.shape
    return jnp.swapaxes(_project(x, w.reshape(D, N * H)).reshape(*x.shape[:-1], N, H), -2, -3)


def _weight(module: nn.Module, dtype, name: str, shape: tuple[int, ...], fan_in: int) -> jax.Array | Quantized:
    weight = module.param(name, nn.initializers.normal(fan_in**-0.5), shape, jnp.float32)
    return weight if quantized.is_quantized(weight) else weight.astype(dtype)
