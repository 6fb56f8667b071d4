"""Decoding: one token of every branch at a time, in chunks of C tokens.

The keys and values of the current chunk are in `Cache.recent`, in the same column for all branches; when a chunk is full,
`flush` moves them to where they belong in `Cache.past`, which is only read while a chunk runs. Every branch starts at the first
column of a chunk, whenever that is, so token t of a branch is always in column t % C and its sums are added up in the same
order, whatever other branches are at. Letters as in `spct_jax.models.decoder`; a row of the batch can have U trunks, and each
of its branches belongs to one of them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from spct_jax.models import attention, decode_kernels, decoder, quantized, rotary, stack, tiles
from spct_jax.models.attention import Standing
from spct_jax.models.config import ModelConfig
from spct_jax.models.quantized import Quantized
from spct_jax.rounding import ceil_div
from spct_jax.sharding import logical

PAST_BLOCK = 32
"""Columns that the past is allotted by; those that no branch has reached are not attended to, see `segments`."""


@flax.struct.dataclass
class Cache:
    """Keys and values that branches have written, by entries of the stack; L = 1 for a layer left over.

    Attributes:
      past: for each of `segments` a pair of [L B G K H S] (or [.. S H], see `Tiles.time_last`) and [L B G K S H]; complete
        chunks. Quantised, with a scale for every column, where `ModelConfig.quantize` says so.
      recent: pairs of [L B G K C H]; the current chunk.
    """

    past: PyTree[Float[Array, "..."]]
    recent: PyTree[Float[Array, "..."]]


class Visible(NamedTuple):
    """Which keys the query of each branch sees in layers of one window."""

    trunks: list[Bool[Array, "B G _"]]
    """For each of U trunks; a branch sees nothing of those that are not its own."""
    past: list[Bool[Array, "B G _"]]
    """For each of `segments`."""
    recent: Bool[Array, "B G C"]


def init_cache(config: ModelConfig, num_trunks: int, num_branches: int, max_len: int, chunk: int) -> Cache:
    """An empty cache for `max_len` tokens of every branch in chunks of `chunk`."""
    block = min(PAST_BLOCK, ceil_div(max_len, chunk) * chunk)
    S = ceil_div(max_len, block) * block
    K, H, chosen = config.num_kv_heads, config.head_dim, tiles.here()

    def empty(entry, *shape, axis=-1, quantize="none"):
        return quantized.zeros((len(entry.layers), num_trunks, num_branches, K, *shape), axis, config.dtype, quantize)

    def segment(entry, columns):
        keys, axis = ((H, columns), -2) if chosen.time_last else ((columns, H), -1)
        k = empty(entry, *keys, axis=axis, quantize=config.quantize)
        return k, empty(entry, columns, H, quantize=config.quantize)

    def past(entry):
        first = S if decode_kernels.is_used(config) else chosen.first_segment
        return tuple(segment(entry, stop - start) for start, stop in segments(S, first))

    def recent(entry):
        return empty(entry, chunk, H), empty(entry, chunk, H)

    return Cache(past=stack.build(config, past), recent=stack.build(config, recent))


def decode(
    params: decoder.Params,
    config: ModelConfig,
    trunks: Sequence[decoder.Trunk],
    tokens: Int[Array, "B G"],
    cache: Cache,
    past_lengths: Int[Array, "B G"],
    column: Int[Array, ""] | int,
    trunk_slot: Int[Array, "B G"] | None = None,
) -> tuple[Float[Array, "B G D"], Cache]:
    """Reads one more token of every branch.

    Args:
      params: parameters, see `spct_jax.models.decoder`.
      config: the architecture.
      trunks: U of them, each of B rows, from `prefill` with the same parameters.
      tokens: the next input of each branch; the first one is its prompt's last token.
      cache: what the branches have read so far.
      past_lengths: tokens that a branch has in the past; a multiple of C.
      column: how many tokens of the current chunk have been read, the same for all branches.
      trunk_slot: which of the U trunks of its row a branch belongs to; None where there is one.

    Returns:
      (hidden states after the final norm, the cache with the token's keys and values in it).
    """
    trunk_slot = jnp.zeros_like(past_lengths) if trunk_slot is None else trunk_slot
    positions = past_lengths + column
    standing = Standing(past_lengths, trunk_slot, tuple(trunk.lengths for trunk in trunks))
    before = jnp.take_along_axis(jnp.stack(standing.trunk_lengths, axis=1), trunk_slot, axis=1)
    longest = jnp.max(past_lengths)  # once for all layers: where the batch is split, every device has to hear of it
    ropes = rotary.tables_by_kind(config, (before + positions)[..., None])
    by_kernels = decode_kernels.is_used(config)

    def masks(entry):
        slots, past = [entry.of(trunk.layers)[0].shape[-2] for trunk in trunks], [v.shape[-2] for _, v in entry.of(cache.past)]
        chunk = entry.of(cache.recent)[0].shape[-2]
        return visible(slots, past, chunk, column, standing, config.window_of(entry.kind))

    # Once for all layers of a kind.
    kinds = {} if by_kernels else {entry.kind: entry for entry in stack.entries(config)}
    seen = {kind: masks(entry) for kind, entry in kinds.items()}

    def body(entry, row, carry, layer):
        x, recent = carry
        block, *trunk_layers = layer
        cap = config.attn_softcap

        def attend(q, k, v):
            # JAX wants indices of one type, and the literals have 64 bits where that is its default.
            at = (row, 0, 0, 0, jnp.asarray(column, int), 0)
            written = tuple(lax.dynamic_update_slice(a, new[None], at) for a, new in zip(entry.of(recent), (k, v), strict=True))
            q, past = q[..., 0, :], entry.of(cache.past)
            if by_kernels:
                held = [stack.stacked(entry, trunk.layers) for trunk in trunks], past[0], written, row
                out = decode_kernels.attend(q, *held, column, standing, config.window_of(entry.kind), cap)
            else:
                # Before any condition: XLA for TPU copies what a branch of one takes, which would be the whole stack.
                own = jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, row, keepdims=False), (past, written))
                out = attend_layer(q, trunk_layers, *own, seen[entry.kind], longest, cap)
            return out[..., None, :], written

        x, written = decoder.apply_block(config, block, x, ropes[entry.kind], attend)
        return (x, entry.put(recent, written)), None

    # Kernels are given the stacks of trunks whole: of what a loop over layers takes apart, they would be given copies.
    layers = stack.zip_stacks(params, *(trunk.layers for trunk in trunks if not by_kernels))
    x = decoder.embed(params, config, tokens[..., None])
    (x, recent), _ = stack.scan(config, body, (x, cache.recent), layers)
    return decoder.final_norm(params, config, x)[:, :, 0], cache.replace(recent=recent)


def visible(
    trunk_slots: Sequence[int],
    past: Sequence[int],
    chunk: int,
    column: Int[Array, ""] | int,
    standing: Standing,
    window: int | None,
) -> Visible:
    """Which keys one query of each branch sees.

    Args:
      trunk_slots: how many each of U trunks has.
      past: columns of each segment of the past.
      chunk: C.
      column: how many tokens of the current chunk came before the query's.
      standing: how far the branches are, and on which trunks.
      window: keys a query sees, itself included; None for all.
    """
    past_lengths, trunk_slot, trunk_lengths = standing
    positions, on_trunks = past_lengths + column, []
    for u, (slots, lengths) in enumerate(zip(trunk_slots, trunk_lengths, strict=True)):
        on_trunks.append(attention.trunk_mask(lengths, slots, positions, window) & (trunk_slot == u)[..., None])
    on_past, start = [], 0
    for count in past:
        columns = jnp.arange(start, start + count)
        on_past.append((columns < past_lengths[..., None]) & attention.causal_mask(positions, columns, window))
        start += count
    columns = jnp.arange(chunk)
    return Visible(on_trunks, on_past, attention.causal_mask(column + jnp.zeros_like(past_lengths), columns, window))


def attend_layer(
    q: Float[Array, "B G K M H"],
    trunks: Sequence[tuple[Float[Array, "B K _ H"] | Quantized, Float[Array, "B K _ H"] | Quantized]],
    past: Sequence[tuple[Float[Array, "B G K _ _"] | Quantized, Float[Array, "B G K _ H"] | Quantized]],
    recent: tuple[Float[Array, "B G K C H"], Float[Array, "B G K C H"]],
    seen: Visible,
    longest: Int[Array, ""] | int,
    cap: float,
) -> Float[Array, "B G K M H"]:
    """Attention of one query of each branch to its trunk, its past and its recent columns, by XLA; float32.

    Of the partials of U trunks, all but that of a branch's own one see no key: one sum over all trunks would depend in its last
    bits on the slot in which a branch's own one is. `longest` is as in `attend_past`, `cap` the soft cap on the scores.
    """
    on_trunks = [attention.one_query_on_trunk(q, k, v, mask, cap) for (k, v), mask in zip(trunks, seen.trunks, strict=True)]
    on_past = attend_past(q, past, seen.past, longest, cap)
    recent_k, recent_v = recent
    on_recent = attention.one_query_on_branch(q, jnp.swapaxes(recent_k, -1, -2), recent_v, seen.recent, cap)
    return attention.merge(*on_trunks, on_past, on_recent)


def attend_past(
    q: Float[Array, "B G K M H"],
    past: Sequence[tuple[Float[Array, "B G K _ _"] | Quantized, Float[Array, "B G K _ H"] | Quantized]],
    seen: Sequence[Bool[Array, "B G _"]],
    longest: Int[Array, ""] | int,
    cap: float,
) -> attention.Partial:
    """Attention of one query of each branch to the past of one layer, segment by segment as far as `longest` columns reach.

    Segments are arrays of their own: XLA's CPU backend takes eight times as long over slices whose start a loop decides, and
    copies those whose start is fixed. The code of one is the same whether or not later ones are read, and one that is not
    read would add nothing, so no bit of a branch depends on how long the others are.
    """

    def attend(part, k, v, mask):
        k = k if tiles.here().time_last else k.swapaxes(-1, -2)
        return attention.combine(part, attention.one_query_on_branch(q, k, v, mask, cap))

    part, start = attention.empty_partial(q.shape, cap, q.dtype), 0
    for (k, v), mask in zip(past, seen, strict=True):
        read = functools.partial(attend, k=k, v=v, mask=mask)
        part = lax.cond(longest > start, read, lambda part: part, part)
        start += v.shape[-2]
    return part


def segments(columns: int, first: int = PAST_BLOCK) -> list[tuple[int, int]]:
    """(first, one past the last) columns of the past that are read together: `first`, then each as many as all before it."""
    stops = [0, min(first, columns)]
    while stops[-1] < columns:
        stops.append(min(2 * stops[-1], columns))
    return list(itertools.pairwise(stops))


def flush(cache: Cache, past_lengths: Int[Array, "B G"] | Int[Array, ""]) -> Cache:
    """Moves a full chunk into the past of every branch, behind the tokens there; one number stands for all branches.

    Every device writes what is its own: the compiler would gather the chunk of all branches for a scatter.
    """
    axis = -1 if tiles.here().time_last else -2  # of the columns, in keys

    def put(segment, chunk, start, axis):
        return jax.tree.map(lambda numbers, new: _put(numbers, new, start, axis), segment, chunk)

    def one_entry(past_lengths, past, recent):
        k, v = recent
        k = quantized.like(jnp.swapaxes(k, axis, -2), past[0][0], -3 - axis)
        v, start, written = quantized.like(v, past[0][1], -1), 0, []
        for past_k, past_v in past:
            written.append((put(past_k, k, past_lengths - start, axis), put(past_v, v, past_lengths - start, -2)))
            start += past_v.shape[-2]
        return tuple(written)

    def all_entries(past, recent, past_lengths):
        return stack.map_stacks(functools.partial(one_entry, past_lengths), past, recent)

    split = (None, "batch", None, "kv_heads")
    where = split, split, ("batch",) * (past_lengths.ndim > 0)
    return cache.replace(past=logical.shard_map(all_entries, where, cache.past, cache.recent, past_lengths))


def _put(segment: jax.Array, chunk: jax.Array, start: jax.Array, axis: int) -> jax.Array:
    """Writes chunk [L B G K ..] into a segment along `axis`, from start [B G] or one for all; not where that is outside."""
    C, shape = chunk.shape[axis], segment.shape
    axis += segment.ndim
    split = segment.reshape(*shape[:axis], shape[axis] // C, C, *shape[axis + 1 :])
    # An index below zero would count from the end.
    at = jnp.where(start < 0, shape[axis], start) // C
    if start.ndim == 0:
        where, values = (slice(None),) * axis + (at,), chunk
    else:
        B, G = start.shape
        where = (slice(None), jnp.arange(B)[:, None], jnp.arange(G), *(slice(None),) * (axis - 3), at)
        # Indices before and after a slice put the indexed axes first.
        values = jnp.moveaxis(chunk, 0, 2)
    return split.at[where].set(values, unique_indices=True, mode="drop").reshape(shape)
