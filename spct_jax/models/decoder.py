"""Gemma-2 and Gemma-3 text decoders, computed as one trunk and many branches.

The trunk is the prompt without its last token; each of its G branches starts by reading that last token, so every
prediction is made by a branch and the trunk only provides keys and values. Trunks are right-aligned in their bucket of
P slots, so relative to the trunk's end slot j stands at time j - P and token t of a branch at time t.

Parameters are a plain tree of arrays, stacked by the layer pattern, R = L // len(pattern) repeats of it::

    {"embedder": {"input_embedding": [V D]},                 and "output_embedding": [V D] in a model that is not tied
     "blocks": {"0": {...: [R ..]}, "1": {...: [R ..]}},      one entry per kind in the pattern
     "remainder": {"0": {...}},                               only if the pattern does not divide L
     "final_norm": {"scale": [D]}}

Letters: B trunks, G branches, T time, P trunk length, D width, N heads, K key heads, H head dim, F feed-forward,
V vocabulary, L layers; M = N / K query heads share a key head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from spct_jax.models import attention, splash, stack, trunk_attention
from spct_jax.models.config import ModelConfig
from spct_jax.models.stack import LayerStack, Params
from spct_jax.sharding import logical

PADDING_LOGIT = -1e30
"""Logit of a row that is no token: exp underflows to 0, and a temperature cannot make it infinite."""


@flax.struct.dataclass
class Trunk:
    """What a prompt leaves behind for its branches.

    Attributes:
      layers: keys and values ([.. B K S H] each) in the shape of the stack, {'blocks': {'0': (k, v)}, ...}; blocks have
        a leading axis R, and local layers keep only the last min(P, window) slots.
      lengths: Int[B], tokens in each trunk.
    """

    layers: dict[str, Any]
    lengths: jax.Array


class RMSNorm(nn.Module):
    """Root-mean-square norm, x / rms(x) * (1 + scale) over the last axis, in float32."""

    eps: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        """Normalises x [.. D]; the result has `dtype`, by default that of x."""
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],))
        y = x.astype(jnp.float32)
        y = y * lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
        return (y * (1 + scale.astype(jnp.float32))).astype(self.dtype or x.dtype)


class Attention(nn.Module):
    """Projections around an attention given by the caller."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x, rope, attend):
        """Maps x [.. T D] to (Float32[.. T D], what `attend` reports); see `Block`."""
        c = self.config
        M = c.num_heads // c.num_kv_heads
        w = functools.partial(_weight, self, x.dtype)
        q = _to_heads(x, w("q", (c.width, c.num_heads, c.head_dim), c.width))
        k = _to_heads(x, w("k", (c.width, c.num_kv_heads, c.head_dim), c.width))
        v = _to_heads(x, w("v", (c.width, c.num_kv_heads, c.head_dim), c.width))
        if c.qk_norm:
            q, k = RMSNorm(c.norm_eps, name="q_norm")(q), RMSNorm(c.norm_eps, name="k_norm")(k)
        q, k, v = (y.astype(x.dtype) for y in (attention.rope(q, rope) * c.query_scale, attention.rope(k, rope), v))
        q = q.reshape(*q.shape[:-3], c.num_kv_heads, M, *q.shape[-2:])
        rows = ("batch", *(None,) * (k.ndim - 4))
        q = logical.constrain(q, *rows, "kv_heads", "heads_per_kv")
        k, v = (logical.constrain(y, *rows, "kv_heads") for y in (k, v))
        encoded, report = attend(q, k, v)
        encoded = encoded.astype(x.dtype).reshape(*x.shape[:-2], c.num_heads, x.shape[-2], c.head_dim)
        out = w("out", (c.num_heads, c.head_dim, c.width), c.num_heads * c.head_dim)
        merged = jnp.swapaxes(encoded, -2, -3).reshape(*x.shape[:-1], c.num_heads * c.head_dim)
        return _project(merged, out.reshape(-1, c.width)), report


class FeedForward(nn.Module):
    """Gated feed-forward layer: gelu(x gate) * (x up), projected down."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x):
        """Maps x [.. T D] to Float32[.. T D]."""
        D, F = self.config.width, self.config.ffw_width
        w = functools.partial(_weight, self, x.dtype)
        gate, up = _project(x, w("gate", (D, F), D)), _project(x, w("up", (D, F), D))
        return _project((nn.gelu(gate) * up).astype(x.dtype), w("down", (F, D), F))


class Block(nn.Module):
    """One layer: attention and feed-forward, each between a norm before and a norm after, on a residual stream.

    Values are rounded to the model's dtype only where they enter a matrix product; everything between is float32.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x, rope, attend):
        """Applies the layer.

        Args:
          x: Float32[.. T D].
          rope: the tables of the layer's kind, broadcast against [.. N T H/2].
          attend: called with q [.. K M T H] and k, v [.. K T H] after norms, RoPE and scaling; returns
            ([.. K M T H], anything), the anything being handed on to the caller.

        Returns:
          (Float32[.. T D], what `attend` reported).
        """
        norm = functools.partial(RMSNorm, self.config.norm_eps)
        into = functools.partial(norm, jnp.dtype(self.config.dtype))
        attended, report = Attention(self.config, name="attn")(into(name="pre_attention_norm")(x), rope, attend)
        x = x + norm(name="post_attention_norm")(attended)
        fed = FeedForward(self.config, name="mlp")(into(name="pre_ffw_norm")(x))
        return x + norm(name="post_ffw_norm")(fed), report


def _project(x: jax.Array, w: jax.Array) -> jax.Array:
    """Projects: x [.. D] times w [D F], both of the model's dtype, as one product of two matrices: Float32[.. F].

    With more than one leading axis XLA's CPU backend fuses element-wise work into strided copies of the operands of the
    weight's gradient, which then takes three times as long.
    """
    product = jnp.matmul(x.reshape(-1, x.shape[-1]), w, preferred_element_type=jnp.float32)
    return product.reshape(*x.shape[:-1], w.shape[-1])


def _to_heads(x: jax.Array, w: jax.Array) -> jax.Array:
    """Projects: x [.. T D] times w [D N H]: [.. N T H]."""
    D, N, H = w.shape
    return jnp.swapaxes(_project(x, w.reshape(D, N * H)).reshape(*x.shape[:-1], N, H), -2, -3)


def _weight(module: nn.Module, dtype, name: str, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    return module.param(name, nn.initializers.normal(fan_in**-0.5), shape).astype(dtype)


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Fresh float32 parameters: normal with fan-in variance, norms at one; layer i depends on (key, i) only."""
    block = Block(config)
    x = jnp.zeros((1, config.width))
    rope = attention.rope_tables(jnp.zeros(1), config.head_dim, 1.0)

    def one(index):
        return block.init(jax.random.fold_in(key, index), x, rope, lambda q, k, v: (q, None))["params"]

    def layers(entry: LayerStack):
        return jax.vmap(one)(jnp.array(entry.layers)) if entry.leading else one(entry.layers[0])

    embedding = jax.random.normal(jax.random.fold_in(key, config.num_layers), (config.vocab_size, config.width))
    params = {
        "embedder": {"input_embedding": embedding * config.width**-0.5},
        "final_norm": {"scale": jnp.zeros(config.width)},
    }
    if not config.tied:
        output = jax.random.normal(jax.random.fold_in(key, config.num_layers + 1), embedding.shape)
        params["embedder"]["output_embedding"] = output * config.width**-0.5
    return params | stack.build(config, layers)


def apply_block(config: ModelConfig, layer: Params, x: jax.Array, rope: Any, attend: Callable) -> tuple[jax.Array, Any]:
    """`Block` with the parameters of one layer, which are gathered only here, where they are needed."""
    layer = logical.gather(layer, config.dtype)
    x, report = Block(config).apply({"params": layer}, x, rope, attend)
    return logical.constrain(x, "batch"), report


def embed(params: Params, config: ModelConfig, tokens: jax.Array) -> jax.Array:
    """What enters the first layer: Int[..] to Float32[.. D]."""
    dtype = jnp.dtype(config.dtype)
    # The root of D is rounded to the weights' dtype, as Gemma was trained.
    scale = jnp.asarray(config.width**0.5, dtype).astype(jnp.float32)
    table = logical.gather({"input_embedding": params["embedder"]["input_embedding"]}, dtype)["input_embedding"]
    return logical.constrain(table[tokens].astype(jnp.float32) * scale, "batch")


def rope_tables(config: ModelConfig, positions: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Rotary tables of both kinds of layer for Int[.. T] positions, with an axis for the heads: [.. 1 T H/2]."""
    positions = positions[..., None, :]
    return {
        "local": attention.rope_tables(positions, config.head_dim, config.rope_base_local),
        "global": attention.rope_tables(positions, config.head_dim, config.rope_base_global, config.rope_scale_global),
    }


def window_of(config: ModelConfig, kind: str) -> int | None:
    """Keys a query of this kind of layer sees, None for all."""
    return config.window if kind == "local" else None


def _forward(params: Params, config: ModelConfig, tokens: jax.Array, lengths: jax.Array) -> tuple[jax.Array, dict]:
    """Plain causal pass over right-aligned tokens Int[B P]: ([B P D] before the final norm, keys and values)."""
    P = tokens.shape[-1]
    positions = jnp.maximum(jnp.arange(P) - (P - lengths[:, None]), 0)
    ropes = rope_tables(config, positions)
    by_kernel = config.attention == "splash" and logical.platform() == "tpu"
    attend_trunk = splash.attend_trunk if by_kernel else trunk_attention.attend_trunk

    def body(entry, x, row, layer):
        window = window_of(config, entry.kind)

        def attend(q, k, v):
            kept = slice(max(P - window, 0), None) if window else slice(None)
            out = attend_trunk(q, k, v, lengths, window, config.attn_softcap)
            return out, (k[:, :, kept], v[:, :, kept])

        return apply_block(config, layer, x, ropes[entry.kind], attend)

    return stack.scan(config, body, embed(params, config, tokens), params)


def prefill(params: Params, config: ModelConfig, tokens: jax.Array, lengths: jax.Array) -> Trunk:
    """Computes trunks once.

    Args:
      params: parameters, see the module's docstring.
      config: the architecture.
      tokens: Int[B P], right-aligned; the slots before the trunk hold any valid token.
      lengths: Int[B], tokens in each trunk, 0 to P.

    Returns:
      The `Trunk`; gradients flow through it.
    """
    _, layers = _forward(params, config, tokens, lengths)
    return Trunk(layers=layers, lengths=lengths)


def extend(params: Params, config: ModelConfig, trunk: Trunk, tokens: jax.Array) -> jax.Array:
    """Continues every trunk by G whole branches.

    Args:
      params: parameters, see the module's docstring.
      config: the architecture.
      trunk: B trunks, from `prefill` with the same parameters.
      tokens: Int[B G T], inputs of the branches; the first input of a branch is the prompt's last token.

    Returns:
      [B G T D] after the final norm.
    """
    times = jnp.arange(tokens.shape[-1])
    ropes = rope_tables(config, trunk.lengths[:, None, None] + times)

    def body(entry, x, row, layer):
        block, (trunk_k, trunk_v) = layer
        window = window_of(config, entry.kind)

        def attend(q, k, v):
            masks = (
                attention.trunk_mask(trunk.lengths, trunk_k.shape[-2], times, window),
                attention.causal_mask(times, times, window),
            )
            return attention.attend_branch(q, (trunk_k, trunk_v), (k, v), masks, config.attn_softcap), None

        return apply_block(config, block, x, ropes[entry.kind], attend)

    x, _ = stack.scan(config, body, embed(params, config, tokens), stack.zip_stacks(params, trunk.layers))
    return final_norm(params, config, x)


def final_norm(params: Params, config: ModelConfig, x: jax.Array) -> jax.Array:
    """The norm before the logits, in the model's dtype."""
    return RMSNorm(config.norm_eps, jnp.dtype(config.dtype)).apply({"params": params["final_norm"]}, x)


def unembed(params: Params, config: ModelConfig, hidden: jax.Array) -> jax.Array:
    """Logits of hidden states [.. D] after the final norm, capped if the model caps them: Float32[.. V].

    Rows of the table that are no tokens get `PADDING_LOGIT`.
    """
    return unembed_with(output_table(params, config), config, hidden)


def output_table(params: Params, config: ModelConfig) -> jax.Array:
    """The table of the logits, [V D] in the model's dtype, gathered as `unembed_with` needs it."""
    name = "input_embedding" if config.tied else "output_embedding"
    return logical.gather({name: params["embedder"][name]}, config.dtype)[name]


def unembed_with(table: jax.Array, config: ModelConfig, hidden: jax.Array) -> jax.Array:
    """`unembed` with the table at hand, for loops over parts of the hidden states."""
    logits = jnp.einsum("...D,VD->...V", hidden, table, preferred_element_type=jnp.float32)
    logits = logical.constrain(logits, "batch", *(None,) * (logits.ndim - 2), "vocab")
    logits = attention.softcap(logits, config.final_softcap)
    if config.num_tokens in (0, config.vocab_size):
        return logits
    return jnp.where(jnp.arange(config.vocab_size) < config.num_tokens, logits, PADDING_LOGIT)


def logits(params: Params, config: ModelConfig, tokens: jax.Array) -> jax.Array:
    """The plain forward pass, without trunk and branches: Int[B T] to Float32[B T V]."""
    x, _ = _forward(params, config, tokens, jnp.full(tokens.shape[:1], tokens.shape[-1]))
    return unembed(params, config, final_norm(params, config, x))
