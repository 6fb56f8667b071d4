"""The architecture of a decoder."""

import dataclasses
import importlib.util
from collections.abc import Iterator
from dataclasses import MISSING
from typing import Any

from spct_jax import field_bounds
from spct_jax.errors import InputError
from spct_jax.field_bounds import MOST, bounded, one_of

MOST_LAYERS = 1024
LONGEST_PATTERN = 64
"""Layers in a pattern: each of them is compiled for itself."""

QUANTIZATIONS = ("none", "int8")
_KINDS = ("local", "global")
_DTYPES = ("float32", "bfloat16", "float16")
_REMATS = ("none", "full", "dots")
_ATTENTIONS = ("auto", "xla", "splash")


def missing(quantize: str) -> str:
    """What has to be installed for a value of `ModelConfig.quantize`; nothing where all is there."""
    there = quantize == "none" or importlib.util.find_spec("qwix")
    return "" if there else "needs qwix: pip install 'spct_jax[quantize]'"


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
    """Positions of all branches whose logits exist at once, in the backward pass too. The output table is read, and its
    gradient read and written, once per chunk: with few branches on a chip, more positions at once move fewer bytes."""
    max_positions: int = bounded(0, 0, MOST)
    """Tokens of the longest sequence the model is made for, prompt and completion together; 0: not known."""
    attention: str = one_of("auto", _ATTENTIONS)
    """`xla`: by XLA only. `splash`: on TPUs by the Pallas kernel, for which `head_dim` must be a multiple of 128. `auto`: by
    the kernel where that is so. On GPUs, but for `xla`, completions are decoded by kernels where there are such
    (`decode_kernels.is_used`)."""
    quantize: str = one_of("none", QUANTIZATIONS)
    """How completions are drawn: `none`, with weights, keys and values in `dtype`; `int8`, with all of these as 8-bit numbers
    with scales, half the bytes of bfloat16. What is learned or scored is never quantised, and no checkpoint is."""

    def __post_init__(self):
        field_bounds.check(self, "model.")

    def conflicts(self, _: str) -> Iterator[str]:
        """What is wrong between the fields, a line each; see `field_bounds`. They are named `model.FIELD` in a run, too."""
        if self.num_heads % self.num_kv_heads:
            yield f"model.num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}"
        if self.num_tokens > self.vocab_size:
            yield f"model.num_tokens={self.num_tokens} is more than vocab_size={self.vocab_size}"
        if self.head_dim % 2:
            yield f"model.head_dim must be even for rotary positions, got {self.head_dim}"
        if len(self.pattern) > LONGEST_PATTERN:
            yield f"model.pattern has {len(self.pattern)} layers; at most {LONGEST_PATTERN} are supported"
        if not isinstance(self.pattern, tuple) or not self.pattern:
            yield f"model.pattern must be a non-empty tuple of 'local' and 'global', got {self.pattern!r}"
        if message := missing(self.quantize):
            yield f"model.quantize={self.quantize!r} {message}"
        if self.attention == "splash" and self.head_dim % 128:
            yield f"model.attention='splash' needs model.head_dim to be a multiple of 128, got {self.head_dim}"

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

    def stored(self) -> dict[str, Any]:
        """The fields by name as a checkpoint carries them: those that belong to the model, not to how it is drawn from."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "quantize"}

    def window_of(self, kind: str) -> int | None:
        """Keys that a query in a layer of this kind sees, itself included; None for all."""
        return self.window if kind == "local" else None
