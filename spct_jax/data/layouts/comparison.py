"""The project's own comparisons."""

from collections.abc import Iterator

from spct_jax.data.comparison import Comparison, of_object
from spct_jax.data.layouts.base import Layout, Row


def _comparisons(row: Row, id: str) -> Iterator[Comparison]:
    # Columns of a table are null where a row has no value.
    yield of_object({key: value for key, value in row.items() if value is not None or key not in _OPTIONAL}, id)


_OPTIONAL = ("id", "query", "conversation", "scores")

LAYOUT = Layout(
    name="comparison",
    row='{"id"?, "query": text or "conversation": [{"role", "content"}], "responses": [text], "scores"?: [number]}',
    ties="an error where one best response is needed (training), else kept",
    licence="yours",
    columns=("responses",),
    comparisons=_comparisons,
    brings_ids=True,
)
