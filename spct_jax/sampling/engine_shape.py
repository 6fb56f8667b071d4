"""The shapes that an engine's programs are compiled for."""

import dataclasses
from typing import NamedTuple

from spct_jax.data import batches
from spct_jax.errors import InputError
from spct_jax.models import decoding, tiles
from spct_jax.rounding import ceil_div
from spct_jax.sampling.kernel import CHUNK

PREFILL_TOKENS = 4096
"""Approximate number of prompt tokens that an engine prefills at once."""
LEAST_SHARED = 64
"""A preamble or a stem of fewer tokens is computed with every prompt: it would save less than its programs take to compile."""
MOST_OF_WHOLE = 0.8
"""A stem is computed once for its siblings if, with it, they take at most this share of the slots that they take without."""

FINER = 256
"""Slots of a part from which there are two lengths for each power of two."""


class Split(NamedTuple):
    """How the trunk of a prompt is computed: which part of it is there already, and in how many slots the others are."""

    shared: int
    """Tokens taken from the preamble."""
    stem: int
    """Slots of its stem, what it has in common with its siblings behind the preamble; 0: that is not computed apart."""
    own: int
    """Slots of the rest."""


class Level(NamedTuple):
    """What one program prefills: trunks that continue equally many others."""

    rows: int
    """B."""
    slots: int
    """P, for the tokens that are computed."""
    trunk_slots: int
    """Slots of the trunks that these tokens complete."""
    before: "Level | None" = None
    """The level whose trunks they continue, equally many rows each of them; None: they begin prompts."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What an engine's programs are compiled for.

    Raises:
      InputError: `chunk` does not divide a block of the cache, `siblings` not the rows of a prefill, or a preamble leaves no
        token of the longest prompt.
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
    siblings: int = 1
    """How many prompts come together that have more in common than the preamble, such as those of a comparison in several
    orders; it divides `prefill_rows` on each device. Where more come together, this many are prefilled at once."""

    def __post_init__(self):
        if self.siblings < 1 or self.prefill_rows % self.siblings:
            raise InputError(f"{self.prefill_rows} rows of a prefill are not a multiple of {self.siblings} siblings")
        if not 0 <= self.preamble < max(self.max_prompt - 1, 1):
            raise InputError(f"a preamble of {self.preamble} tokens leaves none of {self.max_prompt} for what follows it")
        if self.chunk < 1 or decoding.PAST_BLOCK % self.chunk:
            raise InputError(f"chunk is {self.chunk}; it must divide {decoding.PAST_BLOCK}, the columns of a block")

    @classmethod
    def of_stream(
        cls,
        max_prompt: int,
        max_new_tokens: int,
        rows: int,
        branches: int,
        *,
        devices: int = 1,
        preamble: int = 0,
        siblings: int = 1,
    ) -> "Shape":
        """For prompts that take turns in `rows` rows, or in the next multiple of `devices`; most begin with a `preamble`.

        Rows of a single branch have a single trunk: there are no stragglers to share a row with.
        """
        rows = ceil_div(rows, devices) * devices
        return cls(
            max_prompt,
            max_new_tokens,
            rows,
            branches,
            trunks=1 if branches == 1 else 2,
            prefill_rows=_prefill_rows(max_prompt, rows, devices, siblings),
            preamble=shared(preamble, max_prompt),
            siblings=siblings,
        )

    @classmethod
    def of_groups(
        cls, max_prompt: int, max_new_tokens: int, prompts: int, branches: int, *, devices: int = 1, preamble: int = 0
    ) -> "Shape":
        """For up to `prompts` prompts with `branches` samples each, all begun together: prompt i is in row i."""
        rows = ceil_div(prompts, devices) * devices
        return cls(
            max_prompt,
            max_new_tokens,
            rows,
            branches,
            trunks=1,
            prefill_rows=_prefill_rows(max_prompt, rows, devices),
            preamble=shared(preamble, max_prompt),
        )

    def aligned(self, platform: str) -> "Shape":
        """The shape that an engine has on a platform: there, a trunk behind a preamble can need a few more slots, and as trunks
        are equally large with and without a preamble, prompts may then be longer by as many tokens.
        """
        if not self.preamble:
            return self
        own = tiles.of(platform).aligned(self.max_prompt - 1 - self.preamble)
        return dataclasses.replace(self, max_prompt=self.preamble + own + 1)

    def split(self, length: int, shared: int = 0, stem: int = 0) -> Split:
        """How a prompt of `length` tokens is computed whose first `shared` tokens are the preamble.

        `stem` is how many of its first tokens its siblings begin with, too, the preamble included. It is computed once for them
        where that saves slots enough (`MOST_OF_WHOLE`). All this depends on the prompt and the shape alone.
        """
        whole = Split(shared, 0, self.max_prompt - 1 - shared)
        if self.siblings == 1 or stem - shared < LEAST_SHARED:
            return whole
        apart = Split(shared, _padded_part(stem - shared), _padded_part(length - 1 - stem))
        pays = apart.stem + self.siblings * apart.own <= MOST_OF_WHOLE * self.siblings * whole.own
        return apart if pays else whole

    def levels(self, split: Split) -> list[Level]:
        """What is computed of prompts of this split, one after the other: the preamble, stems, and the prompts' own tokens."""
        rows, slots, found = self.prefill_rows, self.max_prompt - 1, []
        if split.shared:
            found.append(Level(1, split.shared, split.shared))
        if split.stem:
            found.append(Level(rows // self.siblings, split.stem, slots, *found))
        return [*found, Level(rows, split.own, slots, *found[-1:])]


def _padded_part(length: int) -> int:
    """Slots of a stem or of what follows it: a power of two, or three quarters of one from 256 on, where padding is dear."""
    power = batches.padded_length(length)
    return 3 * power // 4 if power >= FINER and length <= 3 * power // 4 else power


def branches_of(samples: int) -> int:
    """G where the number of rows is given and this many samples are drawn of a prompt.

    The same for every number above 1, so that a smaller one draws the first samples of a larger one.
    """
    return 4 if samples > 1 else 1


def _prefill_rows(max_prompt: int, rows: int, devices: int, siblings: int = 1) -> int:
    """How many prompts an engine of `rows` rows prefills at once: about `PREFILL_TOKENS` tokens, a multiple of `devices`.

    On each device it is a multiple of `siblings`, even if an engine has fewer rows.
    """
    rows = min(devices * max(1, PREFILL_TOKENS // (max_prompt * devices)), rows)
    return ceil_div(rows, devices * siblings) * devices * siblings if siblings > 1 else rows


def shared(preamble: int, max_prompt: int) -> int:
    """`Shape.preamble` for prompts of up to `max_prompt` tokens and this preamble: its length, or 0 if it is not worth it."""
    return preamble if LEAST_SHARED <= preamble < max_prompt - 1 else 0


def padded_prompt(length: int, preamble: int) -> int:
    """`Shape.max_prompt` for prompts of up to `length` tokens: one of few lengths, behind a preamble if that is worth it."""
    before = shared(preamble, length + 1)
    return before + batches.padded_length(length - before)
