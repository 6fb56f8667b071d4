"""Critiques that are read once more: by a meta RM, or, where an LLM judge's votes are weighted, by the judge itself.

The critiques of one order of a comparison are branches of one trunk, and batches are of few shapes. What is read of a critique
depends on its own trunk and tokens and on the shape only, never on the batch.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from spct_jax import distributed
from spct_jax.data import batches
from spct_jax.data.batches import Groups
from spct_jax.errors import InputError
from spct_jax.grm import parse
from spct_jax.judging import token_prob
from spct_jax.judging.options import Options
from spct_jax.judging.task import Order, Task
from spct_jax.numbers import next_power_of_four
from spct_jax.reward_models import meta

if TYPE_CHECKING:
    from spct_jax.judging.judge import Judge

READ_TOKENS = 32768
"""About how many tokens of prompts and critiques are read at once."""


class Reader:
    """The critiques that wait to be read, by shape."""

    def __init__(self, judge: "Judge", options: Options, conclude: Callable[[Task], None]):
        """`judge` is the `judging.Judge` whose models read; `conclude` is called with a task when all of it is read."""
        self._judge, self._options, self._conclude = judge, options, conclude
        self._waiting: dict[tuple[int, int, int], list[tuple[Task, Order, list[list[int]]]]] = {}

    def queue(self, task: Task) -> None:
        """Queues each order's critiques to be read on one trunk, in the shape that their own number and lengths ask for.

        Samples that came out the same, token for token, are one critique and read once.
        """
        by_order: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
        for sample in range(task.planned):
            critiques = by_order.setdefault(task.samples[sample].order, {})
            critiques.setdefault(tuple(task.tokens[sample]), []).append(sample)
        task.unread = len(by_order)
        for order, critiques in by_order.items():
            max_prompt, max_completion = self._options.shape_of(task.prepared.longest)
            longest = batches.padded_length(max(map(len, critiques)))
            # Few programs: powers of four, and less than four only where fewer samples were drawn.
            most = max(len(critiques), min(sum(map(len, critiques.values())), 4))
            group_size = next_power_of_four(most)
            shape = (max_prompt, group_size, min(longest, max_completion))
            self._waiting.setdefault(shape, []).append((task, order, list(critiques.values())))
        self.read(fill=True)

    def read(self, fill: bool) -> None:
        """Reads critiques in batches of one shape: full batches only, or all that wait."""
        for shape, waiting in self._waiting.items():
            rows = self._reading_rows(shape)
            while len(waiting) >= (rows if fill else 1):
                batch = [waiting.pop(0) for _ in range(min(rows, len(waiting)))]
                read = self._meta_rewards if self._options.k_meta else self._choice_probabilities
                read(batch, self._pack(shape, batch, rows))
                for task, _, _ in batch:
                    task.unread -= 1
                    if not task.unread:
                        self._conclude(task)

    def _reading_rows(self, shape: tuple[int, int, int]) -> int:
        max_prompt, group_size, max_completion = shape
        devices = self._judge.layout.batch_shards
        return max(1, READ_TOKENS // (max_prompt + group_size * max_completion) // devices) * devices

    def _pack(self, shape: tuple[int, int, int], batch: list, rows: int) -> Groups:
        max_prompt, group_size, max_completion = shape
        spare = rows - len(batch)
        return batches.pack(
            [task.prepared.readers[order] for task, order, _ in batch] + [[0]] * spare,
            [[task.tokens[same[0]] for same in critiques] for task, _, critiques in batch] + [[]] * spare,
            max_prompt=max_prompt,
            max_completion=max_completion,
            group_size=group_size,
        )

    def _meta_rewards(self, batch: list, groups: Groups) -> None:
        (params, config, _), layout = self._judge.meta, self._judge.layout
        rewards = distributed.fetch(meta.score_critiques(params, layout.split(groups), layout=layout, config=config))
        for (task, _, critiques), row in zip(batch, rewards, strict=False):
            if not np.isfinite(row[: len(critiques)]).all():
                raise InputError(f"{task.comparison.id!r}: a score of the meta RM is NaN or infinite")
            for same, reward in zip(critiques, row, strict=False):
                for sample in same:
                    task.samples[sample] = dataclasses.replace(task.samples[sample], meta=float(reward))

    def _choice_probabilities(self, batch: list, groups: Groups) -> None:
        judge, most = self._judge, max(task.comparison.n for task, _, _ in batch)
        positions = np.zeros(groups.lengths.shape, np.int32)
        candidates = np.zeros((*positions.shape, batches.padded_length(most)), np.int32)
        chosen = [
            (b, g, task, same)
            for b, (task, _, critiques) in enumerate(batch)
            for g, same in enumerate(critiques)
            if task.samples[same[0]].scores is not None
        ]
        candidates[:] = token_prob.ABSENT
        for b, g, task, same in chosen:
            n = task.comparison.n
            positions[b, g], candidates[b, g, :n] = token_prob.locate(self._judge.prompter.tokenizer, task.tokens[same[0]], n)
        rows = judge.layout.split((groups, positions, candidates))
        weights = token_prob.choice_probabilities(judge.params, *rows, layout=judge.layout, config=judge.config)
        weights = distributed.fetch(weights)
        for b, g, task, same in chosen:
            known = candidates[b, g, : task.comparison.n] != token_prob.ABSENT
            if known.all():  # else the vote stays what it was, whole
                if not np.isfinite(weights[b, g, : len(known)]).all():
                    raise InputError(f"{task.comparison.id!r}: a probability of a response's number is NaN or infinite")
                order = task.samples[same[0]].order
                scores = parse.unshuffle([round(float(w), 6) for w in weights[b, g, : len(order)]], order)
                for sample in same:
                    task.samples[sample] = dataclasses.replace(task.samples[sample], scores=scores)
