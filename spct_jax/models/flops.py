"""The arithmetic of every program by formula, to compare with what the compiler made of it.

Conventions: a multiplication with its addition is two operations; only matrix products count. Attention of a trunk counts the
blocks that are computed (`trunk_attention.query_blocks`), which is more than the causal half and less than the square; a branch
attends to all of its trunk and, masked, to all of its own tokens, but by the kernel only to blocks of them that it sees.
Padding counts, as it is computed. Decoding counts one token of every branch and as many columns of its cache as the caller
says; compiled, all of the cache counts. With `remat="full"` a layer's products are done twice before and twice as much again in
the backward pass (4 times the forward), those of attention in blocks once more, since its scores are never kept (5); the logits
are computed twice and differentiated (4).

Counts are those of the platform at hand (`sharding.logical.platform`), on which sizes of blocks and the kernel depend. A Pallas
kernel is no matrix product to the compiler, so splash attention is counted by formula on both sides: its blocks, two
products forward, which any `remat` but `none` does twice, three for the gradient of queries, four for that of keys and values.

In all functions `rows` is B, `group` is G, `trunk` is P, `time` is T and `prefix` the slots of the trunks that those continue,
which are counted as what is attended to: computing them is another `prefill` or `prefill_update`, of one row for all or so.
Trunks and prefixes are counted in the slots that they are computed in, see `Tiles.trunk_slots`.
"""

from spct_jax.models import attention, splash, splash_branches, stack, tiles, trunk_attention
from spct_jax.models.config import ModelConfig

_LAYER_PASSES = {"none": 3, "dots": 3, "full": 4}
_ATTENTION_PASSES = {"none": 3, "dots": 4, "full": 4}
"""How often an update does the products of a layer, and those of attention, by `ModelConfig.remat`."""


def prefill(c: ModelConfig, rows: int, trunk: int, prefix: int = 0) -> float:
    """Trunks."""
    return rows * (_trunk_linear(c, trunk) + _trunk_attention(c, trunk, prefix))


def decode(c: ModelConfig, branches: int, trunk_slots: int, columns: int = 0, trunks: int = 1) -> float:
    """One token of every branch, which attends to the trunks of its row and to the columns of its own cache."""
    on_branch = _branch_attention(c, _slots(trunk_slots), columns, trunks)
    return branches * (c.num_layers * _linear(c) + on_branch + _unembed(c))


def forward(c: ModelConfig, rows: int, group: int, trunk: int, time: int, prefix: int = 0, *, logits: bool = True) -> float:
    """Trunks and their branches at all positions, with or without logits."""
    each = c.num_layers * _linear(c) + (_unembed(c) if logits else 0)
    on_branches = _on_branches(c, group, _slots(trunk) + _slots(prefix), time)
    of_trunks = prefill(c, rows, trunk, prefix) + rows * _last_queries(c, trunk)
    return of_trunks + rows * (group * time * each + on_branches)


def update(c: ModelConfig, rows: int, group: int, trunk: int, time: int, prefix: int = 0, *, logits: bool = True) -> float:
    """Gradients of trunks and branches."""
    linear = group * time * c.num_layers * _linear(c) + _last_queries(c, trunk)
    on_branches = _on_branches(c, group, _slots(trunk) + _slots(prefix), time, gradients=True)
    unembed = 4 * _unembed(c) * group * time if logits else 0
    of_trunks = prefill_update(c, rows, trunk, prefix)
    return of_trunks + rows * (_LAYER_PASSES[c.remat] * linear + on_branches + unembed)


def prefill_update(c: ModelConfig, rows: int, trunk: int, prefix: int = 0) -> float:
    """Gradients of trunks, those of what continues them aside."""
    on_trunk = _trunk_passes(c, trunk, prefix) * _trunk_attention(c, trunk, prefix)
    return rows * (_LAYER_PASSES[c.remat] * _trunk_linear(c, trunk) + on_trunk)


def kernels(
    c: ModelConfig, rows: int, trunk: int, prefix: int = 0, *, group: int = 0, time: int = 0, gradients: bool = False
) -> float:
    """What of `prefill` or, with branches, of `forward` or, with gradients, `update` is done by Pallas kernels."""
    if not splash.is_used(c):
        return 0.0
    on_trunk = (_trunk_passes(c, trunk, prefix) if gradients else 1) * _trunk_attention(c, trunk, prefix)
    return rows * (on_trunk + _on_branches(c, group, _slots(trunk) + _slots(prefix), time, gradients=gradients))


def _slots(tokens: int) -> int:
    return tiles.here().aligned(tokens)


def _linear(c: ModelConfig) -> float:
    """Projections of one layer, per token."""
    return 4.0 * c.width * c.head_dim * (c.num_heads + c.num_kv_heads) + 6.0 * c.width * c.ffw_width


def _trunk_linear(c: ModelConfig, trunk: int) -> float:
    """All layers, one trunk: branches need keys and values alone of the last layer, but a scan computes all of every layer."""
    each = c.num_layers * _linear(c)
    if _ends_apart(c):
        each += 4.0 * c.width * c.head_dim * c.num_kv_heads - _linear(c)
    return _slots(trunk) * each


def _last_queries(c: ModelConfig, trunk: int) -> float:
    """Of the last layer of one trunk: made by one product with those of its branches, though nothing wants them."""
    return 2.0 * c.width * c.head_dim * c.num_heads * _slots(trunk) if _ends_apart(c) else 0.0


def _ends_apart(c: ModelConfig) -> bool:
    """Whether the last layer is in no scan."""
    return bool(c.remainder) or c.repeats <= stack.UNROLLED_REPEATS


def _trunk_attention(c: ModelConfig, trunk: int, prefix: int) -> float:
    """All layers, the last one only where it is in a scan, one trunk."""
    pairs, query_blocks = 0, (splash if splash.is_used(c) else trunk_attention).query_blocks
    trunk, prefix = map(_slots, (trunk, prefix))
    for kind in c.layer_kinds[:-1] if _ends_apart(c) else c.layer_kinds:
        window = c.window_of(kind)
        pairs += sum(block.scores for block in query_blocks(trunk, window, min(prefix, window or prefix)))
    return 4.0 * c.num_heads * c.head_dim * pairs


def _trunk_passes(c: ModelConfig, trunk: int, prefix: int) -> float:
    """How often an update does the products of a trunk's attention, two each time."""
    if splash.is_used(c):
        return _kernel_passes(c)
    return _ATTENTION_PASSES[c.remat] + (not trunk_attention.is_one_block(*map(_slots, (trunk, prefix))))


def _kernel_passes(c: ModelConfig) -> float:
    return (1 if c.remat == "none" else 2) + 7 / 2


def _on_branches(c: ModelConfig, group: int, trunk: int, time: int, *, gradients: bool = False) -> float:
    """Attention of all branches of a row at all their positions, with its gradient or without."""
    total = 0.0
    for kind in c.layer_kinds if group else ():
        window = c.window_of(kind)
        slots = min(trunk, window or trunk)
        if splash.is_used(c):
            scores, passes = splash_branches.scores(group, time, slots, window), _kernel_passes(c)
        else:
            blocks, block = attention.branch_blocks(group, slots, time)
            scores, passes = group * blocks * block * (slots + time), _ATTENTION_PASSES[c.remat] + (blocks > 1)
        total += (passes if gradients else 1) * scores
    return 4.0 * c.num_heads * c.head_dim * total


def _branch_attention(c: ModelConfig, trunk: int, columns: int, trunks: int = 1) -> float:
    """All layers, one token of a branch: the slots of its row's trunks and columns of its own."""
    slots = sum(trunks * min(trunk, c.window_of(kind) or trunk) + columns for kind in c.layer_kinds)
    return 4.0 * c.num_heads * c.head_dim * slots


def _unembed(c: ModelConfig) -> float:
    """The logits of one token."""
    return 2.0 * c.vocab_size * c.width
