"""Model sizes: one dataclass and one function of literal numbers per size.

The numbers are those of the published Gemma-2 and Gemma-3 text models. A fork adds a size by adding a function to
`SIZES`. This module does not use JAX, so that configurations are made before it is set up.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING

from spct_jax import bounds
from spct_jax.bounds import MOST, bounded, one_of
from spct_jax.errors import InputError

_KINDS = ("local", "global")
_DTYPES = ("float32", "bfloat16", "float16")
MOST_LAYERS = 1024
LONGEST_PATTERN = 64
"""Layers in a pattern: each of them is compiled for itself."""
_REMATS = ("none", "full", "dots")
_ATTENTIONS = ("xla", "splash")


@dataclasses.dataclass(unsafe_hash=True, kw_only=True)
class ModelConfig:
    """The architecture of a decoder; hashable, so that it can be a static argument of jitted functions.

    Raises `spct_jax.errors.InputError` if a field makes no sense.
    """

    vocab_size: int = bounded(MISSING, 1, 1 << 24)
    """V, rows of the embedding table."""
    num_layers: int = bounded(MISSING, 1, MOST_LAYERS)
    """L, blocks in the stack."""
    width: int = bounded(MISSING, 1, 1 << 17)
    """D, the residual stream."""
    num_heads: int = bounded(MISSING, 1, 1024)
    """N, query heads."""
    num_kv_heads: int = bounded(MISSING, 1, 1024)
    """K, key and value heads; divides N."""
    head_dim: int = bounded(MISSING, 2, 4096)
    """H, even; need not be D / N."""
    ffw_width: int = bounded(MISSING, 1, 1 << 20)
    """F, hidden width of the gated feed-forward layer."""
    pattern: tuple[str, ...] = one_of(("local", "global"), _KINDS)
    """Kinds of attention, repeated from layer 0 on; parameters are stacked by it."""
    window: int = bounded(4096, 1, MOST)
    """Keys a query of a local layer sees, itself included."""
    rope_base_local: float = bounded(10_000.0, 1, 1e12)
    """Base of the rotary wavelengths in local layers."""
    rope_base_global: float = bounded(10_000.0, 1, 1e12)
    """Base of the rotary wavelengths in global layers."""
    rope_scale_global: float = bounded(1.0, 0, 1e6, ends="(]")
    """Positions of global layers are divided by this."""
    query_scale: float = bounded(MISSING, 0, 1e3, ends="(]")
    """Factor on the queries, applied after RoPE."""
    attn_softcap: float = bounded(0.0, 0, 1e6)
    """Attention scores s become cap * tanh(s / cap); 0 leaves them as they are."""
    final_softcap: float = bounded(0.0, 0, 1e6)
    """The same for the logits."""
    qk_norm: bool = False
    """RMS-normalise queries and keys over H before RoPE (Gemma-3)."""
    tied: bool = True
    """The embedding table is also the output table."""
    num_tokens: int = bounded(0, 0, 1 << 24)
    """Rows of the tables that are tokens; later rows are padding and get no probability. 0: all are tokens."""
    norm_eps: float = bounded(1e-6, 0, 1, ends="(]")
    """Added to the mean square in every RMSNorm."""
    dtype: str = one_of("float32", _DTYPES)
    """Activations; norms, softmax and logits are float32 whatever it is."""
    remat: str = one_of("none", _REMATS)
    """What of each block is computed again in the backward pass instead of kept: `none`; `full`, all but the block's input;
    `dots`, all but its input and its products with weights."""
    time_chunk: int = bounded(32, 1, MOST)
    """Times of all branches whose logits exist at once, in the backward pass too. The output table is read, and its gradient
    read and written, once per chunk: with few branches on a chip, more times at once move fewer bytes."""
    max_positions: int = bounded(0, 0, MOST)
    """Tokens of the longest sequence the model is made for, prompt and completion together; 0: not known."""
    attention: str = one_of("xla", _ATTENTIONS)
    """Within trunks: `xla`, or `splash`, the Pallas kernel, on TPUs (other devices compute the same by XLA); `head_dim` must
    then be a multiple of 128."""

    def __post_init__(self):
        bounds.check(self, "model.")
        if self.num_heads % self.num_kv_heads:
            raise InputError(f"model.num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}")
        if not 0 <= self.num_tokens <= self.vocab_size:
            raise InputError(f"model.num_tokens={self.num_tokens} is more than vocab_size={self.vocab_size}")
        if self.head_dim % 2:
            raise InputError(f"model.head_dim must be even for rotary positions, got {self.head_dim}")
        if len(self.pattern) > LONGEST_PATTERN:
            raise InputError(f"model.pattern has {len(self.pattern)} layers; at most {LONGEST_PATTERN} are supported")
        if not isinstance(self.pattern, tuple) or not self.pattern:
            raise InputError(f"model.pattern must be a non-empty tuple of 'local' and 'global', got {self.pattern!r}")
        if self.attention == "splash" and self.head_dim % 128:
            raise InputError(f"model.attention='splash' needs model.head_dim to be a multiple of 128, got {self.head_dim}")

    def check_length(self, prompt: int, completion: int, names: str) -> None:
        """Raises InputError if prompt and completion, whose lengths have these names, are longer than the model is made for."""
        if self.max_positions and prompt + completion > self.max_positions:
            raise InputError(
                f"{names} are {prompt:,} + {completion:,} = {prompt + completion:,} tokens; the model has "
                f"{self.max_positions:,} positions"
            )

    @property
    def repeats(self) -> int:
        """R, whole repeats of the pattern."""
        return self.num_layers // len(self.pattern)

    @property
    def remainder(self) -> tuple[str, ...]:
        """Kinds of the layers left over after the whole repeats."""
        return self.pattern[: self.num_layers % len(self.pattern)]

    @property
    def layer_kinds(self) -> tuple[str, ...]:
        """The kind of each of the L layers, in order."""
        return self.pattern * self.repeats + self.remainder


def toy(vocab_size: int = 512) -> ModelConfig:
    """A Gemma-2 in everything but size, for laptops and tests."""
    return ModelConfig(
        vocab_size=vocab_size,
        num_layers=4,
        width=64,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        ffw_width=128,
        window=32,
        rope_base_local=1_000_000_000.0,
        rope_base_global=1_000_000_000.0,
        query_scale=32**-0.5,
        attn_softcap=50.0,
        final_softcap=30.0,
    )


def gemma2_2b() -> ModelConfig:
    """Gemma-2 2B: 2.61 billion parameters."""
    return ModelConfig(
        vocab_size=256_000,
        num_layers=26,
        width=2304,
        num_heads=8,
        num_kv_heads=4,
        head_dim=256,
        ffw_width=9216,
        window=4096,
        query_scale=256**-0.5,
        attn_softcap=50.0,
        final_softcap=30.0,
        max_positions=8192,
        dtype="bfloat16",
        remat="full",
        time_chunk=128,
    )


def gemma2_9b() -> ModelConfig:
    """Gemma-2 9B: 9.24 billion parameters."""
    return dataclasses.replace(
        gemma2_2b(), num_layers=42, width=3584, num_heads=16, num_kv_heads=8, ffw_width=14_336, query_scale=256**-0.5
    )


def gemma2_27b() -> ModelConfig:
    """Gemma-2 27B: 27.2 billion parameters; queries are scaled by (D / N)^-0.5, not H^-0.5."""
    return dataclasses.replace(
        gemma2_2b(),
        num_layers=46,
        width=4608,
        num_heads=32,
        num_kv_heads=16,
        head_dim=128,
        ffw_width=36_864,
        query_scale=144**-0.5,
    )


def gemma3_1b() -> ModelConfig:
    """Gemma-3 1B, text: 1.00 billion parameters; its global layers have no position scaling."""
    return ModelConfig(
        vocab_size=262_144,
        num_layers=26,
        width=1152,
        num_heads=4,
        num_kv_heads=1,
        head_dim=256,
        ffw_width=6912,
        pattern=("local",) * 5 + ("global",),
        window=512,
        rope_base_global=1_000_000.0,
        query_scale=256**-0.5,
        qk_norm=True,
        max_positions=32_768,
        dtype="bfloat16",
        remat="full",
        time_chunk=128,
    )


def gemma3_4b() -> ModelConfig:
    """Gemma-3 4B, text part: 3.88 billion parameters."""
    return dataclasses.replace(
        gemma3_1b(),
        vocab_size=262_208,
        num_layers=34,
        width=2560,
        num_heads=8,
        num_kv_heads=4,
        ffw_width=10_240,
        window=1024,
        rope_scale_global=8.0,
        max_positions=131_072,
    )


def gemma3_12b() -> ModelConfig:
    """Gemma-3 12B, text part: 11.8 billion parameters."""
    return dataclasses.replace(gemma3_4b(), num_layers=48, width=3840, num_heads=16, num_kv_heads=8, ffw_width=15_360)


def gemma3_27b() -> ModelConfig:
    """Gemma-3 27B, text part: 27.0 billion parameters; queries are scaled by (D / N)^-0.5."""
    return dataclasses.replace(
        gemma3_4b(),
        num_layers=62,
        width=5376,
        num_heads=32,
        num_kv_heads=16,
        head_dim=128,
        ffw_width=21_504,
        query_scale=168**-0.5,
    )


SIZES: dict[str, Callable[[], ModelConfig]] = {
    "toy": toy,
    "gemma2_2b": gemma2_2b,
    "gemma2_9b": gemma2_9b,
    "gemma2_27b": gemma2_27b,
    "gemma3_1b": gemma3_1b,
    "gemma3_4b": gemma3_4b,
    "gemma3_12b": gemma3_12b,
    "gemma3_27b": gemma3_27b,
}


def get(name: str) -> ModelConfig:
    """The configuration of a size by name; `InputError` if there is none of that name."""
    if name not in SIZES:
        raise InputError(f"no model size {name!r}; there are {', '.join(SIZES)}")
    return SIZES[name]()
