"""Examples of a run as arrays on the devices."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from spct_jax.data import batches
from spct_jax.data.batches import Example, Groups
from spct_jax.errors import InputError
from spct_jax.grm.prompts import Rollout
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


def pack(run: Run, examples: Sequence[Example], group_size: int, rows: int = 0) -> Groups:
    """Packs groups to the run's shapes, on the devices of all processes; each process makes only the tokens of its own rows.

    Args:
      examples: prompts with their completions.
      group_size: completions per prompt.
      rows: number of prompts, 0 for one per example; if there are fewer examples, the last prompts have no completions.
    """
    rows = rows or len(examples)
    tokens: list = [((0,), ())] * rows
    for row in run.layout.local_rows(rows):
        if row < len(examples):
            tokens[row] = examples[row].tokens()
    groups = batches.pack(
        *zip(*tokens, strict=True),
        max_prompt=run.limits.max_prompt,
        max_completion=run.limits.max_completion,
        group_size=group_size,
    )
    return run.layout.split(groups)
