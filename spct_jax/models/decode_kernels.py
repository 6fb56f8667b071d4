"""Attention of one query of each branch by Triton kernels, for decoding on GPUs; two launches a layer.

`decoding.attend_layer` computes the same by XLA and is the reference. On a GPU, each branch is then small products of its own,
the host waits at every condition whether more of the past must be read, and each layer is copied out of the stacks. The kernels
take the stacks whole and read the columns that a branch sees, no others.

Letters as in `spct_jax.models.decoder`; C columns of a chunk, U trunks of a row. The R = G M queries of a row that share a kv
head are folded into one axis.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from spct_jax.models import attention, tiles
from spct_jax.models.attention import Partial, Standing
from spct_jax.models.config import ModelConfig
from spct_jax.rounding import ceil_div
from spct_jax.sharding import logical

HEAD_DIMS = (64, 128, 256)
"""Triton's tiles are powers of two; larger ones do not fit in registers."""
MIN_TILE = 16
"""Rows, and columns, that Triton's product of two tiles has at least."""

TRUNK_QUERIES = 64
"""Queries, at most, that read a trunk together: what the widest instruction of a Hopper GPU multiplies at once."""
TRUNK_SLOTS = 32
"""Slots of a trunk that are read at once. With 256 numbers a head, two such blocks of keys and of values, one of them on its
way, and the queries are 96 KiB: two programs share a multiprocessor."""
TRUNK_WARPS, TRUNK_STAGES = 4, 2
TRUNK_PROGRAMS = 132
"""Programs that are wanted at least, one for each multiprocessor of a Hopper GPU: where rows are few, several share a trunk."""

BRANCH_COLUMNS = 32
"""Columns of a branch's past that are read at once."""
BRANCH_WARPS, BRANCH_STAGES = 4, 3


def is_used(config: ModelConfig) -> bool:
    """Whether branches attend by the kernels on the device at hand, see `tiles.Tiles.decode_kernels`."""
    possible = config.dtype != "float32" and config.quantize == "none" and config.head_dim in HEAD_DIMS
    # Triton compiles for NVIDIA's GPUs from Ampere, compute capability 8.0, on.
    older = getattr(logical.device(), "compute_capability", "").startswith(("5.", "6.", "7."))
    return possible and config.attention != "xla" and tiles.here().decode_kernels and not older


def attend(
    q: Float[Array, "B G K M H"],
    trunks: Sequence[tuple[Float[Array, "L B K _ H"], Float[Array, "L B K _ H"]]],
    past: tuple[Float[Array, "L B G K S H"], Float[Array, "L B G K S H"]],
    recent: tuple[Float[Array, "L B G K C H"], Float[Array, "L B G K C H"]],
    row: Int[Array, ""] | int,
    column: Int[Array, ""] | int,
    standing: Standing,
    window: int | None,
    cap: float,
) -> Float[Array, "B G K M H"]:
    """Attention of one query of each branch to its trunk, its past and its recent columns, every device on its own rows.

    No bit of a branch depends on what other branches there are, nor on the slot that its trunk is in.

    Args:
      q: queries, already scaled; bfloat16 or float16, and so are keys and values.
      trunks: keys and values of all layers of an entry of the stack, for each of U trunks; right-aligned.
      past: those that branches have written in earlier chunks.
      recent: those of this chunk.
      row: which of the L layers attends.
      column: of the C recent ones, the last that there is: the query's own.
      standing: how far the branches are, and on which trunks.
      window: keys a query sees, itself included; None for all.
      cap: soft cap on the scores, 0 for none.

    Returns:
      In the queries' dtype.
    """
    local = functools.partial(_attend, window=window, cap=cap, interpret=logical.platform() != "gpu")
    rows, own = ("batch", None, "kv_heads", "heads_per_kv"), (None, "batch", None, "kv_heads")
    axes = (rows, (None, "batch", "kv_heads"), own, own, (), ("batch",))
    at = (jnp.asarray(row, jnp.int32), jnp.asarray(column, jnp.int32))
    return logical.shard_map(local, axes, q, tuple(trunks), past, recent, at, standing)


def _attend(q, trunks, past, recent, at, standing, *, window, cap, interpret):
    """`attend` on one device."""
    B, G, K, M, H = q.shape
    folded = jnp.moveaxis(q, 1, 2).reshape(B, K, G * M, H)
    on_trunks = _trunks(folded, trunks, at, standing, window, cap, interpret)
    out = _branches(folded, on_trunks, past, recent, at, standing.past_lengths, window, cap, interpret)
    return jnp.moveaxis(out.reshape(B, K, G, M, H), 2, 1)


def _trunks(q, trunks, at, standing, window, cap, interpret) -> Partial:
    """Attention of folded queries [B K R H] to their own trunks, as partials of several parts of each, [parts B K R ..]."""
    past_lengths, trunk_slot, lengths = standing
    (B, K, R, H), G = q.shape, trunk_slot.shape[1]
    queries = min(_tile(R), TRUNK_QUERIES)
    blocks = ceil_div(R, queries)
    parts = _parts(B * K * blocks * len(trunks), max(k.shape[-2] for k, _ in trunks))
    kernel = functools.partial(_trunk_kernel, parts=parts, queries=queries, heads=R // G, window=window, cap=cap)
    shape = (parts, B, K, R)
    call = _call(kernel, (B, K, blocks, len(trunks) * parts), TRUNK_WARPS, TRUNK_STAGES, interpret)
    outputs = [jax.ShapeDtypeStruct((*shape, H), jnp.float32), *[jax.ShapeDtypeStruct(shape, jnp.float32)] * 2]
    held = [array for (k, v), length in zip(trunks, lengths, strict=True) for array in (k, v, length)]
    return Partial(*call(out_shape=outputs)(*at, past_lengths, trunk_slot, q, *held))


def _parts(programs: int, slots: int) -> int:
    """In how many parts a trunk is read, each by a program of its own."""
    return max(1, min(ceil_div(TRUNK_PROGRAMS, programs), slots // (4 * TRUNK_SLOTS)))


def _trunk_kernel(row_ref, column_ref, past_ref, slot_ref, q_ref, *refs, parts, queries, heads, window, cap):
    """A program for each row, kv head, block of queries, and part of a trunk: it writes the queries that are on this trunk."""
    pl, (*trunk_refs, out_ref, max_ref, sum_ref) = _pallas(), refs
    b, h, block = (pl.program_id(axis) for axis in range(3))
    which, part = lax.div(pl.program_id(3), parts), lax.rem(pl.program_id(3), parts)
    own, index = pl.ds(block * queries, queries), block * queries + jnp.arange(queries)
    exists, branch = index < q_ref.shape[2], lax.div(index, heads)
    trunk_slot = _load(slot_ref.at[b, branch], exists, -1)
    position = _load(past_ref.at[b, branch], exists, 0) + column_ref[...]
    q = _load(q_ref.at[b, h, own, :], exists[:, None], 0.0)

    def read(u):
        k_ref, v_ref, length_ref = trunk_refs[3 * u : 3 * u + 3]
        S, mine = k_ref.shape[3], trunk_slot == u
        first = jnp.zeros_like(position) + jnp.maximum(S - length_ref[b], 0)
        if window is not None:
            first = jnp.maximum(first, position + S - window + 1)
        first = jnp.where(mine, first, S)
        least, each = jnp.min(first), ceil_div(ceil_div(S, TRUNK_SLOTS), parts)

        def step(i, carry):
            slots = i * TRUNK_SLOTS + jnp.arange(TRUNK_SLOTS)
            at, seen = (row_ref[...], b, h, pl.ds(i * TRUNK_SLOTS, TRUNK_SLOTS), slice(None)), (slots >= least) & (slots < S)
            k, v = (_load(ref.at[at], seen[:, None], 0.0) for ref in (k_ref, v_ref))
            return _add(carry, q, k, v, (slots[None] >= first[:, None]) & (slots[None] < S), cap)

        begin = jnp.maximum(lax.div(jnp.minimum(least, S), TRUNK_SLOTS), part * each)
        end = jnp.minimum((part + 1) * each, ceil_div(S, TRUNK_SLOTS))
        # Where no query is on this trunk, the first block would begin behind its last slot.
        end = jnp.where(least < S, end, 0)
        out, peak, total = lax.fori_loop(begin, end, step, _nothing(queries, q.shape[-1]))
        _store(out_ref.at[part, b, h, own, :], out, mine[:, None])
        _store(max_ref.at[part, b, h, own], peak, mine)
        _store(sum_ref.at[part, b, h, own], total, mine)

    for u in range(len(trunk_refs) // 3):
        pl.when(which == u)(functools.partial(read, u))


def _branches(q, on_trunks, past, recent, at, past_lengths, window, cap, interpret):
    """Attention of folded queries [B K R H] to what their branches have written, as one softmax with that to the trunks."""
    (B, G), K = past_lengths.shape, q.shape[1]
    kernel = functools.partial(_branch_kernel, heads=q.shape[2] // G, window=window, cap=cap)
    call = _call(kernel, (B, G, K), BRANCH_WARPS, BRANCH_STAGES, interpret)
    out = call(out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype))
    return out(*at, past_lengths, q, *on_trunks, *past, *recent)


def _branch_kernel(row_ref, column_ref, length_ref, q_ref, out_ref, max_ref, sum_ref, *refs, heads, window, cap):
    """A program for each branch and kv head, whose M = `heads` queries begin a tile of rows; those behind them are no one's."""
    pl, (past_k, past_v, recent_k, recent_v, result_ref) = _pallas(), refs
    b, g, h = (pl.program_id(axis) for axis in range(3))
    row, column, length = row_ref[...], column_ref[...], length_ref[b, g]
    # Not constants: Pallas refuses those whose tile ends behind the last column, though what is there is masked.
    zero = lax.mul(column, 0)
    queries = _tile(heads)
    own, exists = pl.ds(g * heads, queries), jnp.arange(queries) < heads
    q = _load(q_ref.at[b, h, own, :], exists[:, None], 0.0)

    def on_trunk(part):
        part = zero + part
        out = _load(out_ref.at[part, b, h, own, :], exists[:, None], 0.0)
        return Partial(out, *(_load(ref.at[part, b, h, own], exists, 0.0) for ref in (max_ref, sum_ref)))

    def columns_of(refs, begin, count, end, newest, carry):
        columns = begin + jnp.arange(count)
        seen = columns < end
        if window is not None:
            seen &= newest - columns < window
        at = row, b, g, h, pl.ds(begin, count), slice(None)
        k, v = (_load(ref.at[at], seen[:, None], 0.0) for ref in refs)
        return _add(carry, q, k, v, seen[None], cap)

    def step(i, carry):
        return columns_of((past_k, past_v), i * BRANCH_COLUMNS, BRANCH_COLUMNS, length, length + column, carry)

    carry = attention.combine(*map(on_trunk, range(out_ref.shape[0])))
    first = 0 if window is None else lax.div(jnp.maximum(length + column - window + 1, 0), BRANCH_COLUMNS)
    carry = lax.fori_loop(first, lax.div(length + BRANCH_COLUMNS - 1, BRANCH_COLUMNS), step, tuple(carry))
    out, _, total = columns_of((recent_k, recent_v), zero, _tile(recent_k.shape[-2]), column + 1, column, carry)
    out /= jnp.where(total > 0, total, 1.0)[:, None]
    _store(result_ref.at[b, h, own, :], out.astype(result_ref.dtype), exists[:, None])


def _nothing(queries: int, H: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The fields of a `Partial` over no key at all."""
    peak = jnp.full((queries,), attention.MASKED, jnp.float32)
    return jnp.zeros((queries, H), jnp.float32), peak, jnp.zeros((queries,), jnp.float32)


def _add(carry, q, k, v, visible, cap):
    """The fields of a `Partial` with the visible ones of some more keys; without any, no bit of them changes."""
    out, peak, total = carry
    scores = lax.dot_general(q, k, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    scores = jnp.where(visible, attention.softcap(scores, cap), attention.MASKED)
    new_peak = jnp.maximum(peak, jnp.max(scores, axis=1))
    weights = jnp.where(visible, jnp.exp(scores - new_peak[:, None]), 0.0)
    shrink = jnp.exp(peak - new_peak)
    added = lax.dot_general(weights.astype(v.dtype), v, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return out * shrink[:, None] + added, new_peak, total * shrink + jnp.sum(weights, axis=1)


def _tile(count: int) -> int:
    """The rows or columns of the tile that holds `count` of them: a power of two."""
    return max(MIN_TILE, 1 << (count - 1).bit_length())


def _call(kernel, grid, warps, stages, interpret):
    """`pl.pallas_call` of a kernel that is given whole arrays, without its `out_shape`."""
    params = _triton().CompilerParams(num_warps=warps, num_stages=stages)
    return functools.partial(_pallas().pallas_call, kernel, grid=grid, compiler_params=params, interpret=interpret)


def _load(ref, mask, other):
    return _triton().load(ref, mask=mask, other=other)


def _store(ref, value, mask):
    _triton().store(ref, value, mask=mask)


def _pallas():
    """Pallas, loaded only where kernels are used: most programs do without, and loading it takes time."""
    from jax.experimental import pallas

    return pallas


def _triton():
    """Its Triton backend, loaded as late: JAX deprecates it, and other platforms do without."""
    from jax.experimental.pallas import triton

    return triton
