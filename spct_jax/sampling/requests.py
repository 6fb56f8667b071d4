"""What an engine is asked for and what it gives: requests, completions, and a count of what they took."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt32

from spct_jax.sampling.engine_shape import Split


@dataclasses.dataclass
class Usage:
    """How decode slots were used."""

    tokens: int = 0
    """Tokens drawn."""
    slot_steps: int = 0
    """Decode slots times decode steps."""
    prefills: int = 0
    """Prompts whose trunks were computed."""
    trunk_tokens: int = 0
    """Tokens computed for these trunks, those of preambles included."""
    trunk_slots: int = 0
    """Slots that they were computed in, empty rows included."""
    shared_tokens: int = 0
    """Tokens of these trunks that were not computed for them but taken from a preamble or from the stem of a sibling."""

    @property
    def useful_slots(self) -> float:
        """Share of slots, over all steps, that drew a token."""
        return self.tokens / self.slot_steps if self.slot_steps else 1.0

    @property
    def padding(self) -> float:
        """Share of the slots of trunks and branches that held no token."""
        computed = self.trunk_slots + self.slot_steps
        return 1 - (self.trunk_tokens + self.tokens) / computed if computed else 0.0


@dataclasses.dataclass(eq=False)
class Request:
    """A prompt and the samples wanted of it; it may be submitted again with more samples."""

    tag: Any
    """For the caller; the engine does not read it."""
    prompt: Sequence[int]
    key: UInt32[np.ndarray, " words"]
    """Key data of the prompt; sample s is drawn with fold_in(key, s)."""
    waiting: collections.deque[int]
    """Numbers of the samples that have not begun yet."""
    stem: int = 0
    """How many of its first tokens it has in common with its siblings, prompts that come with it; see `Shape.siblings`."""
    split: Split = dataclasses.field(default=None, init=False)
    """How its trunk is computed; set, like `family`, when an engine is given the request (`prefilling.Prefiller.admit`)."""
    family: Any = dataclasses.field(default=None, init=False)
    """The same for all siblings that are computed behind one stem."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """One completion."""

    request: Request
    sample: int
    tokens: list[int]
    """Terminator included."""
    logprobs: Float32[np.ndarray, " T"]
    """Of each token under the distribution it was drawn from."""
