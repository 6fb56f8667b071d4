"""PandaLM's test set: two responses and the votes of three annotators."""

import collections
from collections.abc import Iterator

from spct_jax.data.comparison import Comparison
from spct_jax.data.layouts.base import Layout, LeftOut, Row, labelled, number, text, with_input
from spct_jax.errors import InputError


def _comparisons(row: Row, id: str) -> Iterator[Comparison | LeftOut]:
    votes = [number(row, f"annotator{i}") for i in (1, 2, 3)]
    if not {*votes} <= {0, 1, 2}:
        raise InputError(f"a vote is none of 0, 1, 2 ({votes})")
    (vote, count), *_ = collections.Counter(votes).most_common()
    if vote == 0 or count == 1:
        yield LeftOut("no unique best response")
    else:
        yield labelled(with_input(row), (text(row, "response1"), text(row, "response2")), int(vote) - 1, id)


LAYOUT = Layout(
    name="pandalm",
    row='{"instruction", "input", "response1", "response2", "annotator1", "annotator2", "annotator3": 0 (tie), 1 or 2}; the '
    "majority counts, so that a row is one comparison",
    ties="left out, by majority",
    licence="Apache-2.0; for evaluation",
    columns=("instruction", "response1", "response2", "annotator1", "annotator2", "annotator3"),
    comparisons=_comparisons,
)
