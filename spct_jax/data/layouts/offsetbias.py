"""OffsetBias, and EvalBiasBench from the same authors: the better response is the one that looks worse."""

from collections.abc import Iterator

from spct_jax.data.comparison import Comparison
from spct_jax.data.layouts.base import Layout, Row, first_of, labelled, number, text, with_input
from spct_jax.errors import InputError


def _comparisons(row: Row, id: str) -> Iterator[Comparison]:
    label = number(row, "label")
    if label not in (1, 2):
        raise InputError(f"label is neither 1 nor 2 ({label:g})")
    names = [first_of(row, [f"output_{i}", f"response{i}"]) for i in (1, 2)]
    yield labelled(with_input(row), (text(row, names[0]), text(row, names[1])), int(label) - 1, id)


LAYOUT = Layout(
    name="offsetbias",
    row='{"instruction", "input"?, "output_1", "output_2", "label": 1 or 2}; EvalBiasBench has "response1" and "response2"',
    ties="there are none",
    licence="BSD-3-Clause; written by models (GPT-4, Claude); EvalBiasBench is for evaluation",
    columns=("instruction", "label"),
    comparisons=_comparisons,
)
