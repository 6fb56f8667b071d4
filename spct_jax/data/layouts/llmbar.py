"""LLMBar: pairs in which one response follows the instruction and the other only looks good. A benchmark."""

from collections.abc import Iterator

from spct_jax.data.comparison import Comparison
from spct_jax.data.layouts.base import Layout, Row, labelled, number, text
from spct_jax.errors import InputError


def _comparisons(row: Row, id: str) -> Iterator[Comparison]:
    label = number(row, "label")
    if label not in (1, 2):
        raise InputError(f"label is neither 1 nor 2 ({label:g})")
    yield labelled(text(row, "input"), (text(row, "output_1"), text(row, "output_2")), int(label) - 1, id)


LAYOUT = Layout(
    name="llmbar",
    row='{"input", "output_1", "output_2", "label": 1 or 2}',
    ties="there are none",
    licence="MIT; for evaluation",
    columns=("input", "output_1", "output_2", "label"),
    comparisons=_comparisons,
)
