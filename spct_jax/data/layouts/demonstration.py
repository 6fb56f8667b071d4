"""The project's own demonstrations."""

from collections.abc import Iterator

from spct_jax.data.demonstration import Demonstration, of_object
from spct_jax.data.layouts.base import Layout, Row


def _demonstrations(row: Row, _: str) -> Iterator[Demonstration]:
    yield of_object(row)


LAYOUT = Layout(
    name="demonstration",
    row='{"turns": [{"role", "content"}], "completions": [text]}',
    ties="there are none",
    licence="yours",
    columns=("turns", "completions"),
    demonstrations=_demonstrations,
)
