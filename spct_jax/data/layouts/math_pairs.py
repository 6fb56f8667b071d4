"""A right and a wrong solution of a mathematical problem, as in RewardMATH."""

from collections.abc import Iterator

from spct_jax.data.comparison import Comparison
from spct_jax.data.layouts.base import Layout, Row, first_of, pair, text


def _comparisons(row: Row, id: str) -> Iterator[Comparison]:
    yield pair(text(row, first_of(row, ["prompt", "problem", "question"])), text(row, "chosen"), text(row, "rejected"), id)


LAYOUT = Layout(
    name="math_pairs",
    row='{"prompt", "problem" or "question": text, "chosen": a right solution, "rejected": a wrong one}',
    ties="there are none",
    licence="MIT for RewardMATH's pairs; they are RewardBench's math-prm, so training on them spoils that benchmark",
    columns=("chosen", "rejected"),
    comparisons=_comparisons,
)
