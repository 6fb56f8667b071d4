"""Model sizes: one dataclass and one function of literal numbers per size.

The numbers are those of the published Gemma-2 and Gemma-3 text models. A fork adds a size by adding a function to
`SIZES`. This module does not use JAX, so that configurations are made before it is set up.
"""

import dataclasses
from collections.abc import Callable

from spct_jax.errors import InputError
from spct_jax.models.config import ModelConfig


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


def gemma3_270m() -> ModelConfig:
    """Gemma-3 270M: 0.268 billion parameters, 0.168 of them the embedding table."""
    return dataclasses.replace(gemma3_1b(), num_layers=18, width=640, ffw_width=2048)


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
    "gemma3_270m": gemma3_270m,
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
