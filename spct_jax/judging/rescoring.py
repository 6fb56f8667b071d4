"""Critiques that are read once more when they are drawn: see `readings` for what is read of them, and by which model.

Critiques of one order of a comparison are branches of one trunk, and batches are of few shapes. Trunks are computed as an
engine does, behind a preamble and behind what the orders have in common. What is read of a critique depends on its own trunk
and tokens and on the shape only, never on the batch.
"""

import collections
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from spct_jax.data import batches
from spct_jax.data.batches import Groups
from spct_jax.judging import readings
from spct_jax.judging.models import Models
from spct_jax.judging.options import Options
from spct_jax.judging.readings import Critiques, Reading, Work
from spct_jax.judging.tasks import Order, Task
from spct_jax.models import tiles
from spct_jax.models.config import ModelConfig
from spct_jax.rounding import next_power_of_four
from spct_jax.sampling import Request, Shape, Usage
from spct_jax.sampling.engine_programs import trunk_program
from spct_jax.sampling.engine_shape import Split, shared
from spct_jax.sampling.engine_size import MOST_BRANCHES
from spct_jax.sampling.prefilling import Prefiller, families_of
from spct_jax.sharding import Layout


class _Shape(NamedTuple):
    max_prompt: int
    group_size: int
    max_completion: int
    asked: int
    """See `readings.Work`."""
    siblings: int
    """See `sampling.Shape`."""


class _Batches:
    """The critiques of one shape that wait for a reading."""

    def __init__(self, reading: Reading, layout: Layout, shape: _Shape):
        self._reading, self._layout, self._shape = reading, layout, shape
        row, together = shape.max_prompt + shape.group_size * shape.max_completion, shape.siblings * layout.batch_shards
        self._rows = max(1, tiles.of(layout.platform).read_tokens // row // together) * together
        preamble = shared(len(reading.preamble), shape.max_prompt)
        trunks = Shape(shape.max_prompt, 1, self._rows, prefill_rows=self._rows, preamble=preamble, siblings=shape.siblings)
        self._prefiller = Prefiller(
            layout,
            reading.decoder,
            functools.partial(trunk_program, layout, reading.config),
            trunks,
            reading.preamble,
            Usage(),
        )
        self._waiting: dict[Split, list[Request]] = {}

    def add(self, work: Work) -> None:
        """Queues a work."""
        prompt, stem = self._reading.prompt(work.critiques)
        request = Request(work, prompt, None, collections.deque(), stem=stem)
        self._prefiller.admit(request)
        self._waiting.setdefault(request.split, []).append(request)

    def flush(self, *, only_full: bool) -> list[Task]:
        """Reads full batches, or all that wait; returns the task of each work that was read."""
        read = []
        for split, waiting in self._waiting.items():
            siblings = self._shape.siblings if split.stem else 1
            families, most = families_of(waiting, split, siblings), self._rows // siblings
            while len(families) >= (most if only_full else 1):
                batch, families = families[:most], families[most:]
                read += self._read(batch)
            waiting[:] = [request for family in families for request in family]
        return read

    def _read(self, families: list[list[Request]]) -> list[Task]:
        shards = self._layout.batch_shards
        trunk, placed = self._prefiller.compute([families[s::shards] for s in range(shards)])
        rows: list[Request | None] = [None] * self._rows
        for s, of_shard in enumerate(placed):
            for row, request in of_shard:
                rows[s * self._rows // shards + row] = request
        works = [request.tag if request else None for request in rows]
        self._reading.read(works, trunk, _pack(rows, self._shape))
        return [work.critiques.task for work in works if work]


class Rescorer:
    """The critiques that wait to be read, by reading and shape."""

    def __init__(self, models: Models, options: Options):
        self._layout = models.layout
        self._waiting: list[tuple[Reading, dict[_Shape, _Batches]]] = [(r, {}) for r in readings.chosen(models, options)]
        self._unreadable: list[Task] = []
        """Tasks of whose critiques there is nothing to read."""

    @property
    def readers(self) -> list[ModelConfig]:
        """The architectures of the models that read."""
        return [reading.config for reading, _ in self._waiting]

    def add(self, task: Task) -> None:
        """Queues a task's critiques, those of each order on trunks of their own.

        Their number and lengths alone decide the shapes. Samples that came out the same are one critique and read once.
        """
        by_order: dict[Order, dict[tuple[int, ...], list[int]]] = {}
        for sample in range(task.planned):
            critiques = by_order.setdefault(task.samples[sample].order, {})
            critiques.setdefault(tuple(task.tokens[sample]), []).append(sample)
        for order, found in by_order.items():
            critiques, samples = Critiques(task, order, list(found.values())), sum(map(len, found.values()))
            for reading, waiting in self._waiting:
                for work in _works(reading, critiques):
                    task.to_rescore += 1
                    shape = _shape(work, samples)
                    if shape not in waiting:
                        waiting[shape] = _Batches(reading, self._layout, shape)
                    waiting[shape].add(work)
        if not task.to_rescore:
            self._unreadable.append(task)

    def flush(self, *, only_full: bool) -> list[Task]:
        """Reads critiques in batches of one shape, full batches only or all that wait; returns the tasks that are done.

        Raises:
          InputError: what was read of a critique is not finite.
        """
        done, self._unreadable = self._unreadable, []
        for _, by_shape in self._waiting:
            for waiting in by_shape.values():
                for task in waiting.flush(only_full=only_full):
                    task.to_rescore -= 1
                    if not task.to_rescore:
                        done.append(task)
        return done


def _works(reading: Reading, critiques: Critiques) -> Iterator[Work]:
    """What has to be read of critiques, a work for each row.

    A row of several critiques has no more branches than `sampling.engine_size` allows for, however many samples are drawn.
    """
    work, half = reading.plan(critiques), len(critiques.samples) // 2
    if len(work.branches) > MOST_BRANCHES and half:
        yield from _works(reading, critiques._replace(samples=critiques.samples[:half]))
        yield from _works(reading, critiques._replace(samples=critiques.samples[half:]))
    elif work.branches:
        yield work


def _shape(work: Work, samples: int) -> _Shape:
    """The shape of the batches that a work is read in, where so many samples were drawn in its order."""
    task, longest = work.critiques.task, max(map(len, work.branches))
    # Few programs: powers of four, and less than four only where fewer samples were drawn.
    group_size = next_power_of_four(max(len(work.branches), min(samples, 4)))
    padded, limit = batches.padded_length(longest), task.shape.max_new_tokens
    max_completion = padded if longest > limit else min(padded, limit)  # principles come on top of what is drawn
    return _Shape(task.shape.max_prompt, group_size, max_completion, work.asked, task.shape.siblings)


def _pack(rows: Sequence[Request | None], shape: _Shape) -> Groups:
    """The branches of the works that are in rows; of the prompts, which have their trunks, the last token."""
    return batches.pack(
        [request.prompt[-1:] if request else [0] for request in rows],
        [request.tag.branches if request else [] for request in rows],
        max_prompt=1,
        max_completion=shape.max_completion,
        group_size=shape.group_size,
    )
