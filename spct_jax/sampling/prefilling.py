"""Computes the trunks of prompts level by level: the preamble of a template, stems of siblings, and what prompts have alone."""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from spct_jax import models
from spct_jax.data import batches
from spct_jax.errors import InputError
from spct_jax.runtime import distributed, idle
from spct_jax.sampling.engine_shape import Level, Shape, Split
from spct_jax.sampling.requests import Request, Usage
from spct_jax.sharding import Layout

Families = list[list[Request]]
"""Requests, of which those of one list are siblings behind one stem."""


class Prefiller:
    """Trunks of one shape, all behind one preamble."""

    def __init__(
        self,
        layout: Layout,
        params: Any,
        program: Callable[[Level], Callable],
        shape: Shape,
        preamble: Sequence[int],
        usage: Usage,
    ):
        """Computes nothing yet.

        Args:
          layout: how parameters and rows are split.
          params: as the programs read them.
          program: gives the program of a level, see `EnginePrograms.trunks`.
          shape: of the trunks.
          preamble: tokens that prompts begin with, as many as the shape's preamble; not read where that is 0.
          usage: a counter to add to.

        Raises:
          InputError: the rows cannot be split evenly over the devices, or the preamble is not the shape's.
        """
        if shape.preamble not in (0, len(preamble)):
            raise InputError(f"a preamble of {len(preamble)} tokens for a shape that has one of {shape.preamble}")
        layout.check_rows(shape.prefill_rows // shape.siblings, "a number of rows of a prefill")
        self._layout, self._params, self._program, self._shape, self._usage = layout, params, program, shape, usage
        self._preamble = np.array(preamble[: shape.preamble], np.int32)
        self._of_preamble: models.Trunk | None = None

    def admit(self, request: Request) -> None:
        """Notes in a request how its trunk will be computed; InputError if its prompt is too long for the shape."""
        batches.pack_prompts([request.prompt], self._shape.max_prompt)
        request.split = split_of(request, self._shape, self._preamble)
        stem = np.asarray(request.prompt[: request.stem], np.int32)
        request.family = stem.tobytes() if request.split.stem else id(request)

    def compute(self, chosen: list[Families]) -> tuple[models.Trunk, list[collections.deque[tuple[int, Request]]]]:
        """Computes the trunks of families, given for each shard; all have the same split.

        Returns:
          (the trunks, for each shard the requests with the number of their trunk within the shard).
        """
        split = next(request.split for families in chosen for family in families for request in family)
        *before, last = self._shape.levels(split)
        trunks = (self._trunk_of_preamble(before.pop(0)),) if split.shared else ()
        each, computed = 1, self._usage.trunk_tokens
        if split.stem:
            # What is given ends in a token that is not computed.
            stems = [{i: f[0].prompt[split.shared : f[0].stem + 1] for i, f in enumerate(families)} for families in chosen]
            trunks, each = (self._compute(before.pop(0), stems, trunks),), self._shape.siblings
        placed = [
            {each * i + j: request for i, family in enumerate(families) for j, request in enumerate(family)}
            for families in chosen
        ]
        own = [{row: r.prompt[r.stem if split.stem else split.shared :] for row, r in rows.items()} for rows in placed]
        trunks = self._compute(last, own, trunks)
        lengths = [len(request.prompt) - 1 for rows in placed for request in rows.values()]
        self._usage.prefills += len(lengths)
        self._usage.shared_tokens += sum(lengths) - (self._usage.trunk_tokens - computed)
        return trunks, [collections.deque(rows.items()) for rows in placed]

    def _compute(self, level: Level, prompts: list[dict[int, Sequence[int]]], before: tuple[models.Trunk, ...]) -> models.Trunk:
        """The trunks of a level: in each shard, of the prompts given by their rows, and of nothing in the other rows."""
        each = level.rows // len(prompts)
        rows = [of_shard.get(row, [0]) for of_shard in prompts for row in range(each)]
        tokens, lengths, _ = batches.pack_prompts(rows, level.slots + 1)
        given = self._layout.split((tokens, lengths))
        idle.CLOCK.giving()
        trunks = self._program(level)(self._params, *given, *before)
        idle.CLOCK.gave(trunks)
        self._count(int(lengths.sum()), tokens.size)
        return trunks

    def _trunk_of_preamble(self, level: Level) -> models.Trunk:
        """Computed when it is first asked for."""
        if self._of_preamble is None:
            row = self._preamble[None], np.array([level.slots], np.int32)
            self._of_preamble = self._program(level)(self._params, *distributed.put(row, self._layout.batch(row)))
            self._count(level.slots, level.slots)
        return self._of_preamble

    def _count(self, tokens: int, slots: int) -> None:
        self._usage.trunk_tokens += tokens
        self._usage.trunk_slots += slots


def split_of(request: Request, shape: Shape, preamble: Sequence[int]) -> Split:
    """How the trunk of a request is computed in an engine of this shape and preamble."""
    shared = batches.shared_tokens(request.prompt, preamble[: shape.preamble])
    return shape.split(len(request.prompt), shared, request.stem)


def families_of(requests: Iterable[Request], split: Split, siblings: int) -> Families:
    """The requests of a split in their order, but siblings together, no more of them than a shape has."""
    found: dict[Any, list[Request]] = {}
    for request in requests:
        if request.split == split:
            found.setdefault(request.family, []).append(request)
    return [family[start : start + siblings] for family in found.values() for start in range(0, len(family), siblings)]
