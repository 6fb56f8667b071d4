"""A comparison on its way to a verdict."""

import dataclasses
from typing import NamedTuple

import numpy as np

from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.judging.verdicts import Sample, Verdict
from spct_jax.sampling.engine import Request

Order = tuple[int, ...]
"""order[j] is the index of the response shown in place j."""


class Prepared(NamedTuple):
    """A comparison's prompts, Int32[P] per order: those that critiques are drawn for, and those of the model reading them."""

    prompts: dict[Order, np.ndarray]
    readers: dict[Order, np.ndarray]
    longest: int
    """Tokens of the longest prompt in any order, drawn or not, so that the shape does not depend on how many are drawn. Where
    it does not fit, there are no prompts."""

    @property
    def tokens(self) -> int:
        """Tokens held."""
        each = [self.prompts] if self.readers is self.prompts else [self.prompts, self.readers]
        return sum(prompt.size for prompts in each for prompt in prompts.values())


@dataclasses.dataclass(eq=False)
class Task:
    """A comparison, its prompts, and what has been drawn for it so far."""

    comparison: Comparison
    prepared: Prepared
    planned: int
    """Samples asked for so far."""
    requests: list[Request] = dataclasses.field(default_factory=list)
    samples: dict[int, Sample] = dataclasses.field(default_factory=dict)
    tokens: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    """Of every sample, where they are read once more."""
    unread: int = 0
    """Orders whose critiques are yet to be read."""
    outcome: Verdict | InputError | None = None

    @property
    def size(self) -> int:
        """Tokens of its prompts and characters of its texts."""
        return self.prepared.tokens + self.comparison.characters
