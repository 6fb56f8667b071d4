"""How tokens are drawn."""

import dataclasses
import functools
import numbers

import jax

from spct_jax.errors import InputError


@functools.partial(jax.tree_util.register_dataclass, data_fields=("temperature",), meta_fields=("stop_ids", "top_k", "top_p"))
@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn; as an argument of a jitted function, all but the temperature is static.

    Raises:
      InputError: a number is out of range.
    """

    temperature: float
    """Divides the capped logits; 0, or less than 1e-5, is greedy."""
    stop_ids: tuple[int, ...]
    """Terminators; the one that ends a completion is part of it."""
    top_k: int = 0
    """Draw from the `top_k` likeliest tokens only; 0 for all."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together have at least this probability, among the `top_k`; 1 for all."""

    def __post_init__(self):
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise InputError(f"top_k must be at least 0 and top_p above 0 and at most 1, got {self.top_k} and {self.top_p}")
        if isinstance(self.temperature, numbers.Real) and not self.temperature >= 0:  # it can be traced, or abstract
            raise InputError(f"temperature must be at least 0, got {self.temperature}")
