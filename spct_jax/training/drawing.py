"""Completions of training comparisons, as RL and rejection sampling draw them; a process reads the records of its own rows."""

import collections
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from spct_jax import distributed
from spct_jax.grm import orders
from spct_jax.grm.prompts import Rollout
from spct_jax.training import grouped
from spct_jax.training.context import Run


def draw(
    run: Run,
    params: Any,
    numbers: Sequence[int],
    key: jax.Array,
    *,
    samples: int,
    rows: int,
    temperature: float,
    index: int = 0,
    hinted: bool = False,
) -> tuple[list[Rollout], np.ndarray]:
    """Draws completions of B training comparisons, each shown in an order of its own.

    A comparison that comes up again gets another order and other completions than before.

    Args:
      run: the run.
      params: from `Run.to_draw_with`.
      numbers: of the comparisons, B.
      key: of the draw.
      samples: G, completions of each.
      rows: how many prompts are drawn for at once.
      temperature: 0, or less than 1e-5, is greedy.
      index: of the draw, among those that give a comparison another order each.
      hinted: whether the prompt names the best response.

    Returns:
      (rollouts, the sampler's log-probabilities Float32[B G T]), whole on all processes.
    """
    starts, layout = range(0, len(numbers), rows), run.rollout_layout
    local = [start + row for start in starts for row in layout.local_rows(rows) if start + row < len(numbers)]
    shown = {row: run.dataset.train[numbers[row]] for row in local}
    repeats = _repeats(numbers)
    seen = {row: orders.random_order(c.n, run.config.seed, c.id, index, repeats[row]) for row, c in shown.items()}
    prompts = {row: run.prompter.encode(c, seen[row], hinted=hinted) for row, c in shown.items()}
    ids = [shown[row].id if row in shown else "" for row in range(len(numbers))]
    keys = grouped.sample_keys(key, ids, samples, repeats)
    parts = [
        grouped.draw_rows(
            layout,
            params,
            run.model,
            [prompts.get(start + row, [0]) for row in range(min(rows, len(numbers) - start))],
            keys[start : start + rows],
            rows=rows,
            temperature=temperature,
            limits=run.limits,
        )
        for start in starts
    ]
    out = jax.tree.map(lambda *each: np.concatenate(each), *parts)
    tokens, drawn = grouped.drawn_tokens(out), {}
    for part in distributed.gather({row: run.prompter.read(c, seen[row], tokens[row]) for row, c in shown.items()}):
        drawn |= part
    return [drawn[row] for row in range(len(numbers))], out.logprobs


def _repeats(numbers: Sequence[int]) -> list[int]:
    """How often each number stood before in the sequence."""
    seen, repeats = collections.Counter(), []
    for number in numbers:
        repeats.append(seen[number])
        seen[number] += 1
    return repeats
