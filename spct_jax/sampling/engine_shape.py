"""The shapes that an engine's programs are compiled for."""

import dataclasses

from spct_jax.data import batches
from spct_jax.errors import InputError
from spct_jax.models import decoding
from spct_jax.rounding import ceil_div
from spct_jax.sampling.kernel import CHUNK

PREFILL_TOKENS = 4096
"""Approximate number of prompt tokens that an engine prefills at once."""
LEAST_PREAMBLE = 64
"""A preamble of fewer tokens is computed with every prompt: it would save less than its programs take to compile."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What an engine's programs are compiled for.

    Raises:
      InputError: `chunk` does not divide a block of the cache.
    """

    max_prompt: int
    """Tokens of the longest prompt."""
    max_new_tokens: int
    """T, where completions are cut."""
    rows: int
    """B."""
    branches: int = 4
    """G, branches that a row decodes at once."""
    trunks: int = 2
    """U, trunks that a row holds. With more than one, samples of the next prompt fill free slots while the last samples of the
    previous one still run; a single trunk leaves a third or more of the slots idle, and each further one costs its share of
    trunk attention."""
    prefill_rows: int = 4
    """Prompts that are prefilled at once; a multiple of the number of devices."""
    chunk: int = CHUNK
    """C, tokens between two checks for ended branches; C divides a block of the cache's past."""
    preamble: int = 0
    """Tokens that most prompts begin with and that are computed once for all of these, see `shared`; 0: there are none. Trunks
    have `max_prompt` - 1 slots either way."""

    def __post_init__(self):
        if not 0 <= self.preamble < max(self.max_prompt - 1, 1):
            raise InputError(f"a preamble of {self.preamble} tokens leaves none of {self.max_prompt} for what follows it")
        if self.chunk < 1 or decoding.PAST_BLOCK % self.chunk:
            raise InputError(f"chunk is {self.chunk}; it must divide {decoding.PAST_BLOCK}, the columns of a block")

    @classmethod
    def of_groups(cls, max_prompt: int, max_new_tokens: int, rows: int, branches: int) -> "Shape":
        """For `rows` prompts or fewer with `branches` samples each, all begun together: prompt i is in row i."""
        return cls(max_prompt, max_new_tokens, rows=rows, branches=branches, trunks=1, prefill_rows=rows)

    def aligned(self, multiple: int) -> "Shape":
        """The same, but what follows a preamble has a multiple of so many slots: prompts may be longer by a few tokens."""
        if not self.preamble:
            return self
        own = ceil_div(self.max_prompt - 1 - self.preamble, multiple) * multiple
        return dataclasses.replace(self, max_prompt=self.preamble + own + 1)


def prefill_rows(max_prompt: int, rows: int, devices: int) -> int:
    """How many prompts an engine of `rows` rows prefills at once: about `PREFILL_TOKENS` tokens, a multiple of `devices`."""
    return min(devices * max(1, PREFILL_TOKENS // (max_prompt * devices)), rows)


def shared(preamble: int, max_prompt: int) -> int:
    """`Shape.preamble` where prompts of up to `max_prompt` tokens begin with so many: these, or 0 if it is not worth it."""
    return preamble if LEAST_PREAMBLE <= preamble < max_prompt - 1 else 0


def padded_prompt(length: int, preamble: int) -> int:
    """`Shape.max_prompt` for prompts of up to `length` tokens, padded to one of few lengths, but for a preamble worth it."""
    before = preamble if LEAST_PREAMBLE <= preamble < length else 0
    return before + batches.padded_length(length - before)
