"""Examples of a run as arrays on the devices."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Int32

from spct_jax.data import batches
from spct_jax.data.batches import Example, Groups
from spct_jax.errors import InputError
from spct_jax.grm.prompts import Rollout
from spct_jax.models import flops
from spct_jax.runtime import distributed
from spct_jax.sharding import Layout
from spct_jax.training import buckets, preambles
from spct_jax.training.buckets import Bucket
from spct_jax.training.context import Run
from spct_jax.training.micro_batches import Batch
from spct_jax.training.preambles import Preamble


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
    table: Sequence[Bucket]
    """The shapes that those of other steps are computed at."""
    tokens: int | jax.Array
    """Of all completions."""
    preamble: int = 0
    """Tokens of the preamble that prompts may begin with."""

    def batch(self, rows: Any) -> Batch:
        """Rows of which these groups are a part, for what computes them in micro-batches."""
        return Batch(rows, self.buckets, self.table)

    def labels(self, layout: Layout, of_examples: Sequence[Sequence[float]], width: int) -> jax.Array:
        """Float32[B width] on the devices: the labels of each example in its row, and behind them zeros."""
        labels = np.zeros((len(self.order), width), np.float32)
        for row, given in zip(labels, of_examples, strict=True):
            row[: len(given)] = given
        return layout.split(labels[self.order])

    def arithmetic(self, cost: Callable[..., float], behind: int = 0) -> float:
        """Sum of `cost(rows, G, P, T)`, a formula of `models.flops`, over the micro-batches; of those whose trunks continue a
        preamble with `prefix`, the number of its tokens. Each completion has `behind` slots more.
        """
        G, count = self.groups.lengths.shape[-1], len(self.buckets)
        rows, apart = self.groups.lengths.size // G // count, buckets.whole(self.groups)
        return sum(
            cost(rows, G, prompt - 1, completion + behind)
            if (prompt, completion) == apart
            else cost(rows, 1, prompt - 1, G * (completion + behind), prefix=self.preamble)
            for prompt, completion in self.buckets
        )


def pack(
    run: Run,
    examples: Sequence[Example],
    group_size: int,
    rows: int = 0,
    micro_batches: int = 1,
    table: Sequence[Bucket] = (),
    preamble: Preamble = (),
    limits: Bucket | None = None,
) -> Packed:
    """Packs groups to one shape, on the devices of all processes; each process makes only the tokens of its own rows.

    If there are length buckets, rows of like lengths are put into one micro-batch; otherwise they keep the order of the
    examples.

    Args:
      run: the run.
      examples: prompts with their completions.
      group_size: completions per prompt.
      rows: number of prompts, 0 for one per example; if there are fewer examples, the last prompts have no completions.
      micro_batches: how many the update splits them into.
      table: the buckets.
      preamble: what most of the prompts begin with.
      limits: longest prompt and completion; None for those of the run.
    """
    rows = rows or len(examples)
    tokens_of = functools.cache(lambda i: examples[i].tokens() if i < len(examples) else ((0,), ()))
    limits = limits or (run.limits.max_prompt, run.limits.max_completion)
    order, chosen = _arranged(
        run.layout, rows, lambda i: lengths(*tokens_of(i), preamble), group_size, micro_batches, table, limits
    )
    tokens: list = [((0,), ())] * rows
    for row in run.layout.local_rows(rows):
        tokens[row] = tokens_of(int(order[row]))
    shape = {"max_prompt": limits[0], "max_completion": limits[1], "group_size": group_size}
    groups = batches.pack(*zip(*tokens, strict=True), **shape, preamble=preamble)
    split = run.layout.split(groups)
    # Counted on the host where that has all rows: CPUs make it wait for a program that is behind others.
    count = split.lengths.sum() if distributed.several() else int(groups.lengths.sum())
    return Packed(split, order, chosen, table, count, len(preamble))


def _arranged(
    layout: Layout,
    rows: int,
    lengths_of: Callable[[int], tuple[int, int]],
    group_size: int,
    micro_batches: int,
    table: Sequence[Bucket],
    limits: Bucket,
) -> tuple[Int[np.ndarray, " B"], list[Bucket]]:
    """`buckets.arrange` of the rows, each process finding lengths of its own only; without buckets they stay in order."""
    if not table:
        return np.arange(rows), [limits] * micro_batches
    found: dict[int, tuple[int, int]] = {}
    for part in distributed.gather({i: lengths_of(i) for i in layout.local_rows(rows)}):
        found |= part
    prompts, completions = (np.array([found[i][k] for i in range(rows)]) for k in (0, 1))
    return buckets.arrange(prompts, completions, table, group_size, micro_batches)


def lengths(prompt: Sequence[int], completions: Iterable[Sized], preamble: Preamble = ()) -> tuple[int, int]:
    """Tokens of a prompt without its preamble, and of its completions together."""
    return len(prompt) - batches.shared_tokens(prompt, preamble), sum(map(len, completions))


def update_arithmetic(run: Run, packed: Sequence[Packed], preamble: Preamble = (), *, scalar: bool = False) -> float:
    """Floating-point operations of an update from these; of a `scalar` model, which is read after the last token."""
    cost = functools.partial(flops.update, run.model, logits=not scalar)
    return sum(each.arithmetic(cost, behind=int(scalar)) for each in packed) + preambles.arithmetic(run, preamble)
