"""GSM8K: grade-school problems and a worked answer to each."""

from collections.abc import Iterator

from spct_jax.data.comparison import Turn
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.layouts.base import Layout, Row, text


def _demonstrations(row: Row, _: str) -> Iterator[Demonstration]:
    yield Demonstration([Turn("user", text(row, "question"))], [text(row, "answer")])


LAYOUT = Layout(
    name="gsm8k",
    row='{"question", "answer"}',
    ties="there are none",
    licence="MIT",
    columns=("question", "answer"),
    demonstrations=_demonstrations,
)
