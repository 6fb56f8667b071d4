"""Critiques that are read once more when they are drawn: see `readings` for what is read of them, and by which model.

The critiques of one order of a comparison are branches of one trunk, and batches are of few shapes. What is read of a critique
depends on its own trunk and tokens and on the shape only, never on the batch.
"""

from typing import NamedTuple

from spct_jax.data import batches
from spct_jax.data.batches import Groups
from spct_jax.judging import readings
from spct_jax.judging.models import Models
from spct_jax.judging.options import Options
from spct_jax.judging.readings import Critiques, Reading, Work
from spct_jax.judging.tasks import Order, Task
from spct_jax.models import tiles
from spct_jax.rounding import next_power_of_four


class _Shape(NamedTuple):
    max_prompt: int
    group_size: int
    max_completion: int
    contexts: int
    """See `readings.Work`."""


class Rescorer:
    """The critiques that wait to be read, by reading and shape."""

    def __init__(self, models: Models, options: Options):
        self._models = models
        self._waiting: list[tuple[Reading, dict[_Shape, list[Work]]]] = [(r, {}) for r in readings.chosen(models, options)]
        self._unreadable: list[Task] = []
        """Tasks of whose critiques there is nothing to read."""

    def add(self, task: Task) -> None:
        """Queues a task's critiques, those of each order on a trunk of their own.

        Their number and lengths alone decide the shape. Samples that came out the same are one critique and read once.
        """
        by_order: dict[Order, dict[tuple[int, ...], list[int]]] = {}
        for sample in range(task.planned):
            critiques = by_order.setdefault(task.samples[sample].order, {})
            critiques.setdefault(tuple(task.tokens[sample]), []).append(sample)
        for order, critiques in by_order.items():
            for reading, waiting in self._waiting:
                work = reading.plan(Critiques(task, order, list(critiques.values())))
                if work.branches:
                    task.to_rescore += 1
                    waiting.setdefault(_shape(work, sum(map(len, critiques.values()))), []).append(work)
        if not task.to_rescore:
            self._unreadable.append(task)

    def flush(self, *, only_full: bool) -> list[Task]:
        """Reads critiques in batches of one shape, full batches only or all that wait; returns the tasks that are done.

        Raises:
          InputError: what was read of a critique is not finite.
        """
        done, self._unreadable = self._unreadable, []
        for reading, by_shape in self._waiting:
            for shape, waiting in by_shape.items():
                rows = self._rows(shape)
                while len(waiting) >= (rows if only_full else 1):
                    batch = [waiting.pop(0) for _ in range(min(rows, len(waiting)))]
                    reading.read(batch, _pack(reading, shape, batch, rows))
                    for work in batch:
                        task = work.critiques.task
                        task.to_rescore -= 1
                        if not task.to_rescore:
                            done.append(task)
        return done

    def _rows(self, shape: _Shape) -> int:
        layout, row = self._models.layout, shape.max_prompt + shape.group_size * shape.max_completion
        return max(1, tiles.of(layout.platform).read_tokens // row // layout.batch_shards) * layout.batch_shards


def _shape(work: Work, samples: int) -> _Shape:
    task, longest = work.critiques.task, max(map(len, work.branches))
    # Few programs: powers of four, and less than four only where fewer samples were drawn.
    group_size = next_power_of_four(max(len(work.branches), min(samples, 4)))
    padded, limit = batches.padded_length(longest), task.shape.max_new_tokens
    max_completion = padded if longest > limit else min(padded, limit)  # principles come on top of what is drawn
    return _Shape(task.shape.max_prompt, group_size, max_completion, work.contexts)


def _pack(reading: Reading, shape: _Shape, batch: list[Work], rows: int) -> Groups:
    spare = rows - len(batch)
    return batches.pack(
        [reading.prompt(work.critiques) for work in batch] + [[0]] * spare,
        [work.branches for work in batch] + [[]] * spare,
        max_prompt=shape.max_prompt,
        max_completion=shape.max_completion,
        group_size=shape.group_size,
    )
