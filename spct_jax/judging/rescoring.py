"""Critiques that are read once more when they are drawn: by the meta RM, or by the LLM judge whose votes are weighted.

The critiques of one order of a comparison are branches of one trunk, and batches are of few shapes. What is read of a critique
depends on its own trunk and tokens and on the shape only, never on the batch.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from spct_jax import distributed
from spct_jax.data import batches
from spct_jax.data.batches import Groups
from spct_jax.errors import InputError
from spct_jax.grm import parse
from spct_jax.judging import token_prob
from spct_jax.judging.models import Models
from spct_jax.judging.options import Options
from spct_jax.judging.tasks import Order, Task
from spct_jax.reward_models import scalar
from spct_jax.rounding import next_power_of_four

BATCH_TOKENS = 32768
"""About how many tokens of prompts and critiques are read at once."""


class _Shape(NamedTuple):
    max_prompt: int
    group_size: int
    max_completion: int


class _Critiques(NamedTuple):
    """What was drawn of a comparison in one order."""

    task: Task
    order: Order
    samples: list[list[int]]
    """For each different critique, the numbers of the samples that are it, token for token."""


class Rescorer:
    """The critiques that wait to be read, by shape."""

    def __init__(self, models: Models, options: Options):
        self._models, self._options = models, options
        self._waiting: dict[_Shape, list[_Critiques]] = {}

    def add(self, task: Task) -> None:
        """Queues a task's critiques, those of each order on a trunk of their own.

        Their number and lengths alone decide the shape. Samples that came out the same are one critique and read once.
        """
        by_order: dict[Order, dict[tuple[int, ...], list[int]]] = {}
        for sample in range(task.planned):
            critiques = by_order.setdefault(task.samples[sample].order, {})
            critiques.setdefault(tuple(task.tokens[sample]), []).append(sample)
        task.orders_to_rescore = len(by_order)
        for order, critiques in by_order.items():
            longest = batches.padded_length(max(map(len, critiques)))
            # Few programs: powers of four, and less than four only where fewer samples were drawn.
            most = max(len(critiques), min(sum(map(len, critiques.values())), 4))
            shape = _Shape(task.shape.max_prompt, next_power_of_four(most), min(longest, task.shape.max_new_tokens))
            self._waiting.setdefault(shape, []).append(_Critiques(task, order, list(critiques.values())))

    def flush(self, *, only_full: bool) -> list[Task]:
        """Reads critiques in batches of one shape, full batches only or all that wait; returns the tasks that are done.

        Raises:
          InputError: what was read of a critique is not finite.
        """
        read = self._meta_rewards if self._options.k_meta else self._choice_probabilities
        done = []
        for shape, waiting in self._waiting.items():
            rows = self._rows(shape)
            while len(waiting) >= (rows if only_full else 1):
                batch = [waiting.pop(0) for _ in range(min(rows, len(waiting)))]
                read(batch, self._pack(shape, batch, rows))
                for task, _, _ in batch:
                    task.orders_to_rescore -= 1
                    if not task.orders_to_rescore:
                        done.append(task)
        return done

    def _rows(self, shape: _Shape) -> int:
        devices = self._models.layout.batch_shards
        return max(1, BATCH_TOKENS // (shape.max_prompt + shape.group_size * shape.max_completion) // devices) * devices

    def _pack(self, shape: _Shape, batch: list[_Critiques], rows: int) -> Groups:
        spare = rows - len(batch)
        return batches.pack(
            [task.prompts.rescoring[order] for task, order, _ in batch] + [[0]] * spare,
            [[task.tokens[same[0]] for same in samples] for task, _, samples in batch] + [[]] * spare,
            max_prompt=shape.max_prompt,
            max_completion=shape.max_completion,
            group_size=shape.group_size,
        )

    def _meta_rewards(self, batch: list[_Critiques], groups: Groups) -> None:
        layout, model = self._models.layout, self._models.meta
        scored = scalar.make_scorer(layout, model.config)(model.params, layout.split(groups))
        for (task, _, samples), row in zip(batch, distributed.fetch(scored), strict=False):
            if not np.isfinite(row[: len(samples)]).all():
                raise InputError(f"{task.comparison.id!r}: a score of the meta RM is NaN or infinite")
            for same, reward in zip(samples, row, strict=False):
                for sample in same:
                    task.samples[sample] = dataclasses.replace(task.samples[sample], meta=float(reward))

    def _choice_probabilities(self, batch: list[_Critiques], groups: Groups) -> None:
        layout, model = self._models.layout, self._models.policy
        positions = np.zeros(groups.lengths.shape, np.int32)
        most = max(task.comparison.n for task, _, _ in batch)
        candidates = np.full((*positions.shape, batches.padded_length(most)), token_prob.ABSENT, np.int32)
        chosen = [
            (b, g, task, same)
            for b, (task, _, samples) in enumerate(batch)
            for g, same in enumerate(samples)
            if task.samples[same[0]].scores is not None
        ]
        for b, g, task, same in chosen:
            n = task.comparison.n
            positions[b, g], candidates[b, g, :n] = token_prob.locate(model.prompter.tokenizer, task.tokens[same[0]], n)
        arguments = layout.split((groups, positions, candidates))
        weights = distributed.fetch(token_prob.make_weigher(layout, model.config)(model.params, *arguments))
        for b, g, task, same in chosen:
            n, order = task.comparison.n, task.samples[same[0]].order
            if (candidates[b, g, :n] == token_prob.ABSENT).any():
                continue  # The vote counts in full.
            if not np.isfinite(weights[b, g, :n]).all():
                raise InputError(f"{task.comparison.id!r}: a probability of a response's number is NaN or infinite")
            scores = parse.unshuffle([round(float(w), 6) for w in weights[b, g, :n]], order)
            for sample in same:
                task.samples[sample] = dataclasses.replace(task.samples[sample], scores=scores)
