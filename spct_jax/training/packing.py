"""Examples of a run as arrays on the devices."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence, Sized

import numpy as np
from jaxtyping import Int, Int32

from spct_jax import distributed
from spct_jax.data import batches
from spct_jax.data.batches import Example, Groups
from spct_jax.errors import InputError
from spct_jax.grm.prompts import Rollout
from spct_jax.training import buckets
from spct_jax.training.buckets import Bucket
from spct_jax.training.context import Run


def example_of(
    run: Run, number: int, rollout: Rollout, completions: Sequence[Int32[np.ndarray, " T"]] | None = None
) -> Example:
    """The prompt of a training comparison in the rollout's order, with the completions given, or all that were drawn.

    Its `tokens` raises InputError if the comparison is no longer the one that the completions were drawn for.
    """
    completions = rollout.completions if completions is None else completions

    def tokens():
        comparison = run.dataset.train[number]
        if comparison.id != rollout.id:
            raise InputError(f"{run.workdir}: drawn for {rollout.id!r}, but data.train now has {comparison.id!r} there")
        return run.prompter.encode(comparison, rollout.order), completions

    return Example(rollout.id, len(completions), tokens)


@dataclasses.dataclass(frozen=True)
class Packed:
    """A batch on the devices."""

    groups: Groups
    order: Int[np.ndarray, " B"]
    """Which of the examples is in each row; where rows are more than examples, the numbers beyond are rows without any."""
    buckets: list[Bucket]
    """The shape that each micro-batch is computed at."""

    def arithmetic(self, cost: Callable[..., float]) -> float:
        """Sum of `cost(rows, G, P, T)`, a formula of `models.flops`, over the micro-batches."""
        B, G = self.groups.lengths.shape
        return sum(cost(B // len(self.buckets), G, prompt - 1, completion) for prompt, completion in self.buckets)


def pack(run: Run, examples: Sequence[Example], group_size: int, rows: int = 0, micro_batches: int = 1) -> Packed:
    """Packs groups to the run's shapes, on the devices of all processes; each process makes only the tokens of its own rows.

    If the run has length buckets, rows of like lengths are put into one micro-batch; otherwise they keep the order of the
    examples.

    Args:
      run: the run.
      examples: prompts with their completions.
      group_size: completions per prompt.
      rows: number of prompts, 0 for one per example; if there are fewer examples, the last prompts have no completions.
      micro_batches: how many the update splits them into.
    """
    rows = rows or len(examples)
    local, table = run.layout.local_rows(rows), buckets.table(run.config.data)
    tokens_of = functools.cache(lambda i: examples[i].tokens() if i < len(examples) else ((0,), ()))
    limits = run.limits.max_prompt, run.limits.max_completion
    order, chosen = np.arange(rows), [limits] * micro_batches
    if table:
        lengths = np.zeros((2, rows), int)
        # Where a row goes depends on the lengths of all of them, and each process tokenises its share.
        for part in distributed.gather({i: _lengths(*tokens_of(i)) for i in local}):
            lengths[:, list(part)] = np.transpose(list(part.values()))
        order, chosen = buckets.arrange(*lengths, table, group_size, micro_batches)
    tokens: list = [((0,), ())] * rows
    for row in local:
        tokens[row] = tokens_of(int(order[row]))
    groups = batches.pack(*zip(*tokens, strict=True), max_prompt=limits[0], max_completion=limits[1], group_size=group_size)
    return Packed(run.layout.split(groups), order, chosen)


def _lengths(prompt: Sized, completions: Iterable[Sized]) -> tuple[int, int]:
    return len(prompt), max(map(len, completions), default=0)
