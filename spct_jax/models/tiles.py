"""Sizes in which arithmetic is cut up, by platform; the one place where models and their sampling differ between platforms.

On a CPU, pieces are as small as its caches. A TPU reads scores from scratch memory of 128 MiB, and its matrix units idle over
pieces of 32 queries; each size below is the best of those tried by the compiler's estimate (docs/results/speed.md). On a GPU
every piece is kernels of its own, so there are few.
"""

import dataclasses

from spct_jax.models.config import LONGEST_PATTERN
from spct_jax.rounding import ceil_div
from spct_jax.sharding import logical


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Sizes for one platform."""

    queries: int
    """Queries of a trunk whose scores exist at once, where it is longer than `trunk_attention.QUERY_BLOCK`."""
    branch_scores: int
    """Scores per trunk and head that exist at once while branches attend at all their positions; more are not kept for the
    backward pass."""
    unrolled_layers: int
    """Stacks up to this deep are decoded without a scan over layers. That takes longer to compile, but every layer's weights
    and cache are then arrays of their own, which a TPU fetches ahead, and of which XLA's CPU backend need not copy slices: so a
    token of Gemma-3 270M takes a quarter less."""
    first_segment: int
    """Columns of a completion's past that are read together first, a multiple of `decoding.PAST_BLOCK`. Each further segment
    (`decoding.segments`) is a condition, for which the host waits on a GPU, and kernels of its own."""
    logits: int
    """Logits that exist at once where a large vocabulary is taken in blocks (`models.vocabulary_blocks`). For each block the
    gradient of all hidden states is read and written."""
    read_tokens: int
    """About how many tokens of prompts and critiques all devices read at once, where critiques are read once more."""
    time_last: bool
    """Whether keys of the past are held with the columns as the last axis. A TPU would lay them out anew for every chunk, and a
    kernel on a GPU reads the numbers of a column together."""
    trunk_slots: int = 1
    """Trunks have a multiple of this many slots. A TPU reads keys in tiles of as many rows, and would lay out trunks that end
    within one anew for every chunk."""
    width_last: bool = False
    """Whether the weights that give queries, keys and values are held with the model's width as the last axis by what draws. Of
    a few heads, a TPU would lay them out so for every token."""
    decode_kernels: bool = False
    """Whether branches attend by `models.decode_kernels` while they are decoded, where these can do it. Their past is then held
    in one segment."""

    def aligned(self, slots: int) -> int:
        """Slots of a trunk that needs `slots` at least."""
        return ceil_div(slots, self.trunk_slots) * self.trunk_slots


_CPU = Tiles(
    queries=32,
    branch_scores=1 << 18,
    unrolled_layers=LONGEST_PATTERN,
    first_segment=32,
    logits=1 << 25,
    read_tokens=4096,
    time_last=True,
)

PLATFORMS = {
    "cpu": _CPU,
    "gpu": Tiles(
        queries=256,
        branch_scores=1 << 20,
        unrolled_layers=8,
        first_segment=128,
        logits=1 << 28,
        read_tokens=32768,
        time_last=False,
        decode_kernels=True,
    ),
    "tpu": Tiles(
        queries=128,
        branch_scores=1 << 20,
        unrolled_layers=LONGEST_PATTERN,
        first_segment=256,
        logits=1 << 25,
        read_tokens=32768,
        time_last=False,
        trunk_slots=16,
        width_last=True,
    ),
}
"""Platforms that are not named take the sizes of a CPU."""


def of(platform: str) -> Tiles:
    """The sizes for a platform, as JAX names it."""
    return PLATFORMS.get(platform, _CPU)


def here() -> Tiles:
    """The sizes for the function being traced, see `logical.platform`."""
    return of(logical.platform())
