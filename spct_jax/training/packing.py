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
    """Completions of a training comparison, all that were drawn or those given, behind the prompt they were drawn for.

    Its `tokens` raises InputError where the comparison is no longer the one that was drawn for.
    """
    completions = rollout.completions if completions is None else completions

    def tokens():
        comparison = run.dataset.train[number]
        if comparison.id != rollout.id:
            raise InputError(f"{run.workdir}: drawn for {rollout.id!r}, but data.train now has {comparison.id!r} there")
        return run.prompter.encode(comparison, rollout.order), completions

    return Example(rollout.id, len(completions), tokens)


def pack(run: Run, examples: Sequence[Example], group_size: int, rows: int = 0) -> Groups:
    """Packs groups to the run's shapes, on the devices of all processes; each makes the tokens of its own rows only.

    Args:
      examples: the prompts.
      group_size: completions per prompt.
      rows: prompts that there are to be, the last ones without a completion where there are fewer examples.
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
