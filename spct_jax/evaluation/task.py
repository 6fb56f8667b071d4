"""A comparison on its way to a verdict."""

import dataclasses
from typing import NamedTuple

from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.evaluation.verdicts import Sample, Verdict
from spct_jax.sampling.engine import Request

Order = tuple[int, ...]
"""Which response is shown in each place."""


class Prepared(NamedTuple):
    """A comparison's prompts, per order: those that critiques are drawn for, and those of the model that reads critiques."""

    prompts: dict[Order, list[int]]
    readers: dict[Order, list[int]]


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
    def longest_prompt(self) -> int:
        """Tokens of the longest of its prompts."""
        return max(len(prompt) for prompts in self.prepared for prompt in prompts.values())
