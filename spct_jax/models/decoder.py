"""The decoder, computed as one trunk and many branches.

A prompt is read once and several completions continue it. The prompt without its last token is the trunk; each completion is
a branch, and its first input is the prompt's last token. So every prediction is made by a branch, and all that a trunk leaves
behind is the keys and values that branches attend to. `prefill` computes trunks. `extend` runs branches at all their positions
at once, to train or to score, on trunks that are there or beside their prompts; `spct_jax.models.decoding` runs them one token
at a time, to sample. `logits` is the plain forward pass, without trunk and branches.

How models differ (soft caps, windows, norms of queries and keys) is said by the fields of `ModelConfig`; with those there are,
Gemma-2 and Gemma-3 can be computed.

Trunks are right-aligned in P slots: counted from the trunk's end, slot j has position j - P and token t of a branch position t,
however long the trunk is. A trunk can continue another, its prefix, by tokens of its own: so what many prompts begin with is
computed once. The result is a trunk like any other, and can be continued in turn.

Parameters are a plain tree of arrays; the layers in it are stacked, see `spct_jax.models.stack`::

    {"embedder": {"input_embedding": [V D]},       and "output_embedding": [V D] in a model that is not tied
     "blocks": {"0": {...: [R ..]}, ..},
     "remainder": {"0": {...}, ..},
     "final_norm": {"scale": [D]}}

Letters: B trunks, G branches per trunk, T positions of queries, S those of keys, P trunk slots, D width, N heads, K kv heads,
M = N / K heads that share one, H head dim, F feed-forward, V vocabulary, L layers, R repeats of the pattern of layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from spct_jax.errors import InputError
from spct_jax.models import attention, quantized, rotary, splash, splash_branches, stack, tiles, trunk_attention
from spct_jax.models.config import ModelConfig
from spct_jax.models.layers import Block, RMSNorm
from spct_jax.models.places import Places
from spct_jax.models.quantized import Quantized
from spct_jax.models.stack import LayerStack, Params
from spct_jax.sharding import logical

PADDING_LOGIT = -1e30
"""Logit of a row of the table that is no token: exp underflows to 0, and dividing by a temperature keeps it finite."""


@flax.struct.dataclass
class Trunk:
    """What prompts leave behind for their branches.

    Attributes:
      layers: keys and values, a pair of [.. B K S H] per entry of the stack; local layers keep the last min(P, window) slots.
      lengths: tokens in each trunk.
    """

    layers: PyTree[Float[Array, "..."]]
    lengths: Int[Array, " B"]


@flax.struct.dataclass
class Prompts:
    """Trunks that are not computed yet; the fields are those arguments of `prefill`."""

    tokens: Int[Array, "B P"]
    lengths: Int[Array, " B"]
    prefix: Trunk | None = None


def init(config: ModelConfig, key: PRNGKeyArray) -> Params:
    """Fresh float32 parameters: normal with fan-in variance, norms at one; layer i depends on (key, i) only."""
    block = Block(config)
    x = jnp.zeros((1, config.width))
    rope = rotary.tables(jnp.zeros(1, jnp.int32), config.head_dim, 1.0)

    def one_layer(index):
        return block.init(jax.random.fold_in(key, index), x, rope, lambda q, k, v: (q, None))["params"]

    def layers(entry: LayerStack):
        return jax.vmap(one_layer)(jnp.array(entry.layers)) if entry.leading else one_layer(entry.layers[0])

    def table(index):
        return jax.random.normal(jax.random.fold_in(key, index), (config.vocab_size, config.width), jnp.float32)

    params = {
        "embedder": {"input_embedding": table(config.num_layers) * config.width**-0.5},
        "final_norm": {"scale": jnp.zeros(config.width, jnp.float32)},
    }
    if not config.tied:
        params["embedder"]["output_embedding"] = table(config.num_layers + 1) * config.width**-0.5
    return params | stack.build(config, layers)


def prefill(
    params: Params,
    config: ModelConfig,
    tokens: Int[Array, "B P"],
    lengths: Int[Array, " B"],
    prefix: Trunk | None = None,
    slots: int | None = None,
) -> Trunk:
    """Computes trunks, from their first token on or behind a prefix.

    Args:
      params: parameters, see the module's docstring.
      config: the architecture.
      tokens: the trunks, or what follows the prefix, right-aligned; the slots before hold any valid token.
      lengths: such tokens in each trunk, 0 to P.
      prefix: trunks of the same parameters that the rows continue: one for each row, one for all rows, or one for every m rows
        that follow each other. Its lengths, as many as it has trunks or one for each row, say how many of its last tokens a
        row has: 0 for a row without the prefix, all of them for any other.
      slots: of the result; None: those of the prefix and P. Tokens must fit in.

    Returns:
      The `Trunk`, prefix included, in as many slots as asked for and, where `Tiles.trunk_slots` says so, a few more; gradients
      flow through it and the prefix.
    """
    prompts = _aligned(Prompts(tokens, lengths, prefix))
    _, layers = _causal_pass(params, config, prompts, slots and tiles.here().aligned(slots))
    return Trunk(layers=layers, lengths=_complete_lengths(prompts))


def _aligned(prompts: Prompts) -> Prompts:
    """Prompts with empty slots before them, so that there are as many as trunks have, see `Tiles.trunk_slots`."""
    P = prompts.tokens.shape[-1]
    return prompts.replace(tokens=jnp.pad(prompts.tokens, ((0, 0), (tiles.here().aligned(P) - P, 0))))


def _complete_lengths(prompts: Prompts) -> Int[Array, " B"]:
    """Tokens of each trunk, prefix included."""
    before = 0 if prompts.prefix is None else _for_rows(prompts.prefix.lengths, len(prompts.lengths))
    return before + prompts.lengths


def _for_rows(of_trunks: Array, rows: int) -> Array:
    """What every m rows that follow each other have in common, [B / m ..], for each of the B rows."""
    return jnp.repeat(of_trunks, rows // len(of_trunks), axis=0)


def extend(
    params: Params, config: ModelConfig, trunk: Trunk | Prompts, tokens: Int[Array, "B G T"], places: Places | None = None
) -> Float[Array, "B G T D"]:
    """Continues every trunk by G branches, at all their positions at once.

    Args:
      params: parameters, see the module's docstring.
      config: the architecture.
      trunk: B trunks, from `prefill` with the same parameters; or, where nothing but these branches needs the trunks, the
        `Prompts` themselves. These go through each layer together with their branches, by one product for both: devices that
        split parameters gather them once and add up their gradients once, and no keys and values are kept.
      tokens: inputs of the branches; the first one is the prompt's last token.
      places: where completions lie in a branch that holds all those of its trunk, one behind the other; None: each
        completion is a branch.

    Returns:
      Hidden states after the final norm, in the model's dtype.
    """
    if isinstance(trunk, Prompts):
        return _read_and_extend(params, config, _aligned(trunk), tokens, places)
    positions, attend = _branch_attention(config, trunk.lengths, tokens.shape[-1], places)
    ropes = rotary.tables_by_kind(config, positions[:, None])

    def body(entry, row, x, layer):
        block, trunk_kv = layer
        return apply_block(config, block, x, ropes[entry.kind], lambda *qkv: (attend(entry, *qkv, trunk_kv), None))

    x, _ = stack.scan(config, body, embed(params, config, tokens), stack.zip_stacks(params, trunk.layers))
    return final_norm(params, config, x)


def _read_and_extend(
    params: Params, config: ModelConfig, prompts: Prompts, tokens: Int[Array, "B G T"], places: Places | None
) -> Float[Array, "B G T D"]:
    """`extend` of prompts: in each row the P slots of its trunk, and behind them the G T tokens of its branches."""
    (B, G, T), P = tokens.shape, prompts.tokens.shape[-1]
    positions, read = _trunk_attention(config, prompts)
    on_branches, follow = _branch_attention(config, _complete_lengths(prompts), T, places)
    ropes = rotary.tables_by_kind(config, jnp.concatenate([positions, jnp.tile(on_branches, (1, G))], axis=1))

    def branches(x):
        return jnp.moveaxis(x[..., P:, :].reshape(*x.shape[:-2], G, T, x.shape[-1]), -3, 1)

    def body(entry, row, x, layer):
        block, *before = layer

        def attend(*qkv):
            on_trunk, trunk_kv = read(entry, *(x[..., :P, :] for x in qkv), *before)
            own = jnp.moveaxis(follow(entry, *map(branches, qkv), trunk_kv), 1, -3)
            own = own.reshape(*on_trunk.shape[:-2], G * T, -1)
            # Nothing reads what the last layer would make of a trunk.
            return own if stack.is_last(config, entry, row) else jnp.concatenate([on_trunk, own], axis=-2), None

        return apply_block(config, block, x, ropes[entry.kind], attend)

    x = embed(params, config, jnp.concatenate([prompts.tokens, tokens.reshape(B, G * T)], axis=1))
    x, _ = stack.scan(config, body, x, _with_prefix(params, prompts))
    return final_norm(params, config, x[:, -G * T :].reshape(B, G, T, -1))


def logits(params: Params, config: ModelConfig, tokens: Int[Array, "B T"]) -> Float[Array, "B T V"]:
    """The plain forward pass, without trunk and branches; float32.

    Raises:
      InputError: tokens are no integers or, where they are known, not all in the vocabulary: a table would be read at its ends.
    """
    check_tokens(config, tokens)
    x, _ = _causal_pass(params, config, Prompts(tokens, jnp.full(tokens.shape[:1], tokens.shape[-1])))
    return unembed(params, config, final_norm(params, config, x))


def check_tokens(config: ModelConfig, tokens: Any, name: str = "tokens") -> None:
    """Raises InputError where tokens are no integers or, unless they are traced, where one is outside the vocabulary."""
    dtype = getattr(tokens, "dtype", None) or np.asarray(tokens).dtype
    if not jnp.issubdtype(dtype, jnp.integer):
        raise InputError(f"{name}: token ids must be integers, got {dtype}")
    if not isinstance(tokens, jax.core.Tracer) and np.size(tokens):
        least, most = int(np.min(tokens)), int(np.max(tokens))
        if least < 0 or most >= config.vocab_size:
            raise InputError(f"{name}: {least if least < 0 else most} is outside the vocabulary of {config.vocab_size}")


def _causal_pass(
    params: Params, config: ModelConfig, prompts: Prompts, trunk_slots: int | None = None
) -> tuple[Float[Array, "B P D"], PyTree]:
    """Prompts through all layers: (the residual stream before the final norm, keys and values as in `Trunk`)."""
    positions, attend = _trunk_attention(config, prompts, trunk_slots)
    ropes = rotary.tables_by_kind(config, positions)

    def body(entry, row, x, layer):
        block, *before = layer
        return apply_block(config, block, x, ropes[entry.kind], lambda *qkv: attend(entry, *qkv, *before))

    return stack.scan(config, body, embed(params, config, prompts.tokens), _with_prefix(params, prompts))


def _with_prefix(params: Params, prompts: Prompts) -> PyTree:
    """By layers: the parameters and, if prompts continue a prefix, its keys and values."""
    return stack.zip_stacks(params, *([prompts.prefix.layers] if prompts.prefix else []))


def _trunk_attention(
    config: ModelConfig, prompts: Prompts, trunk_slots: int | None = None
) -> tuple[Int[Array, "B P"], Callable]:
    """How the tokens of prompts attend.

    Returns:
      (their positions, a function of an entry of the stack, its q, k and v and, if there is a prefix, keys and values of that,
      which returns (the attention's result, keys and values as in `Trunk`)).
    """
    P, lengths = prompts.tokens.shape[-1], prompts.lengths
    all_lengths = _complete_lengths(prompts)
    positions = jnp.maximum(jnp.arange(P) - (P - lengths[:, None]), 0) + (all_lengths - lengths)[:, None]
    attend_trunk = (splash if splash.is_used(config) else trunk_attention).attend_trunk

    def attend(entry, q, k, v, before=None):
        window = config.window_of(entry.kind)
        if before is not None:
            k, v = (_put_before(earlier, own, lengths) for earlier, own in zip(before, (k, v), strict=True))
        S = trunk_slots or k.shape[-2]
        kept = min(S, window) if window else S
        out = attend_trunk(q, k, v, all_lengths, window, config.attn_softcap)
        return out, (_last(k, kept), _last(v, kept))

    return positions, attend


def _branch_attention(
    config: ModelConfig, trunk_lengths: Int[Array, " B"], length: int, places: Places | None
) -> tuple[Int[Array, "B T"], Callable]:
    """How branches of `length` tokens attend.

    Returns:
      (their positions, a function of an entry of the stack, its q, k and v, and keys and values of the trunks, which returns
      the attention's result).
    """
    slots = jnp.arange(length)
    positions = slots[None] if places is None else places.positions

    def attend(entry, q, k, v, trunk_kv):
        window, cap = config.window_of(entry.kind), config.attn_softcap
        if splash.is_used(config):
            return splash_branches.attend_branch(q, trunk_kv, (k, v), trunk_lengths, places, window, cap)
        masks = (
            attention.trunk_mask(trunk_lengths, trunk_kv[0].shape[-2], positions, window),
            places.visible(window) if places else attention.causal_mask(slots, slots, window)[None],
        )
        return attention.attend_branch(q, trunk_kv, (k, v), masks, cap)

    return trunk_lengths[:, None] + positions, attend


def _last(x: Float[Array, "B K S H"], count: int) -> Float[Array, "B K _ H"]:
    """The last `count` slots, with zeros before them where there are fewer."""
    S = x.shape[-2]
    return x[:, :, S - count :] if count <= S else jnp.pad(x, ((0, 0), (0, 0), (count - S, 0), (0, 0)))


def _put_before(
    prefix: Float[Array, "_ K S H"], own: Float[Array, "B K P H"], lengths: Int[Array, " B"]
) -> Float[Array, "B K S+P H"]:
    """Keys or values of each row's own tokens, right-aligned, with those of its prefix in the slots right before them."""
    P, S = own.shape[-2], prefix.shape[-2]
    prefix = _for_rows(prefix, len(own))
    slots = jnp.pad(own, ((0, 0), (0, 0), (S, 0), (0, 0)))
    put = jax.vmap(lambda slots, prefix, first: lax.dynamic_update_slice_in_dim(slots, prefix, first, axis=1))
    return logical.constrain(put(slots, prefix, P - lengths), "batch", "kv_heads")


def apply_block(
    config: ModelConfig, layer: Params, x: Float[Array, "... T D"], rope: rotary.Tables, attend: Callable
) -> tuple[Float[Array, "... _ D"], Any]:
    """`Block` with the parameters of one layer, which are gathered here, where they are needed, and no earlier."""
    layer = logical.gather(layer, config.dtype)
    x, report = Block(config).apply({"params": layer}, x, rope, attend)
    return logical.constrain(x, "batch"), report


def embed(params: Params, config: ModelConfig, tokens: Int[Array, "..."]) -> Float[Array, "... D"]:
    """What enters the first layer; float32."""
    dtype = jnp.dtype(config.dtype)
    # The root of D is rounded to the weights' dtype, as it was when the published models were trained.
    scale = jnp.asarray(config.width**0.5, dtype).astype(jnp.float32)
    table = logical.gather({"input_embedding": params["embedder"]["input_embedding"]}, dtype)["input_embedding"]
    return logical.constrain(quantized.rows(table, tokens) * scale, "batch")


def final_norm(params: Params, config: ModelConfig, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """The norm before the logits, in the model's dtype."""
    return RMSNorm(config.norm_eps, jnp.dtype(config.dtype)).apply({"params": params["final_norm"]}, x)


def unembed(params: Params, config: ModelConfig, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Logits of hidden states after the final norm, capped if the model caps them; float32.

    Rows of the table that are no tokens get `PADDING_LOGIT`.
    """
    return unembed_with(output_table(params, config), config, hidden)


def output_table(params: Params, config: ModelConfig) -> Float[Array, "V D"] | Quantized:
    """The table of the logits in the model's dtype, or quantised, gathered as `unembed_with` needs it."""
    name = "input_embedding" if config.tied else "output_embedding"
    return logical.gather({name: params["embedder"][name]}, config.dtype)[name]


def unembed_with(
    table: Float[Array, "V D"] | Quantized,
    config: ModelConfig,
    hidden: Float[Array, "... D"],
    first: Int[Array, ""] | int = 0,
) -> Float[Array, "... V"]:
    """`unembed` with the table already gathered, for loops over chunks of hidden states, or over rows from `first` on."""
    logits = quantized.logits(hidden, table)
    logits = logical.constrain(logits, "batch", *(None,) * (logits.ndim - 2), "vocab")
    logits = attention.softcap(logits, config.final_softcap)
    if config.num_tokens in (0, config.vocab_size):
        return logits
    return jnp.where(first + jnp.arange(table.shape[0]) < config.num_tokens, logits, PADDING_LOGIT)
