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
class Packing:
    """How the examples of a step become the rows of its update; the same at every step of a stage."""

    group_size: int
    """G, completions per prompt."""
    limits: Bucket
    """Longest prompt and completion."""
    micro_batches: int = 1
    """How many the update splits the rows into."""
    table: Sequence[Bucket] = ()
    """The buckets, so that rows of like lengths are put into one micro-batch; without any, rows keep the order of examples."""
    preamble: Preamble = ()
    """What most of the prompts begin with."""
    rows: int = 0
    """Number of prompts, 0 for one per example; if there are fewer examples, the last prompts have no completions."""


@dataclasses.dataclass(frozen=True)
class Packed:
    """A batch on the devices."""

    groups: Groups
    order: Int[np.ndarray, " B"]
    """Which of the examples is in each row; where rows are more than examples, the numbers beyond are rows without any."""
    buckets: list[Bucket]
    """The shape that each micro-batch is computed at."""
    tokens: int | jax.Array
    """Of all completions."""
    packing: Packing
    """How it was packed."""

    def batch(self, rows: Any) -> Batch:
        """Rows of which these groups are a part, for what computes them in micro-batches."""
        return Batch(rows, self.buckets, self.packing.table)

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
            else cost(rows, 1, prompt - 1, G * (completion + behind), prefix=len(self.packing.preamble))
            for prompt, completion in self.buckets
        )


def pack(run: Run, examples: Sequence[Example], packing: Packing) -> Packed:
    """Packs groups on the devices of all processes; each process makes only the tokens of its own rows."""
    rows = packing.rows or len(examples)
    tokens_of = functools.cache(lambda i: examples[i].tokens() if i < len(examples) else ((0,), ()))
    order, chosen = _arranged(run.layout, rows, lambda i: lengths(*tokens_of(i), packing.preamble), packing)
    tokens: list = [((0,), ())] * rows
    for row in run.layout.local_rows(rows):
        tokens[row] = tokens_of(int(order[row]))
    max_prompt, max_completion = packing.limits
    shape = {"max_prompt": max_prompt, "max_completion": max_completion, "group_size": packing.group_size}
    groups = batches.pack(*zip(*tokens, strict=True), **shape, preamble=packing.preamble)
    split = run.layout.split(groups)
    # Counted on the host where that has all rows: CPUs make it wait for a program that is behind others.
    count = split.lengths.sum() if distributed.several() else int(groups.lengths.sum())
    return Packed(split, order, chosen, count, packing)


def _arranged(
    layout: Layout, rows: int, lengths_of: Callable[[int], tuple[int, int]], packing: Packing
) -> tuple[Int[np.ndarray, " B"], list[Bucket]]:
    """`buckets.arrange` of the rows, each process finding lengths of its own only; without buckets they stay in order."""
    if not packing.table:
        return np.arange(rows), [packing.limits] * packing.micro_batches
    found: dict[int, tuple[int, int]] = {}
    for part in distributed.gather({i: lengths_of(i) for i in layout.local_rows(rows)}):
        found |= part
    prompts, completions = (np.array([found[i][k] for i in range(rows)]) for k in (0, 1))
    return buckets.arrange(prompts, completions, packing.table, packing.group_size, packing.micro_batches)


def lengths(prompt: Sequence[int], completions: Iterable[Sized], preamble: Preamble = ()) -> tuple[int, int]:
    """Tokens of a prompt without its preamble, and of its completions together."""
    return len(prompt) - batches.shared_tokens(prompt, preamble), sum(map(len, completions))


def update_arithmetic(run: Run, packed: Sequence[Packed], *, scalar: bool = False) -> float:
    """Floating-point operations of an update from these, which have one preamble; of a `scalar` model, which is read after the
    last token.
    """
    cost = functools.partial(flops.update, run.model, logits=not scalar)
    preamble = packed[0].packing.preamble
    return sum(each.arithmetic(cost, behind=int(scalar)) for each in packed) + preambles.arithmetic(run, preamble)
