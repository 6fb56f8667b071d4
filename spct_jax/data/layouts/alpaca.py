"""Alpaca: an instruction, perhaps an input, and the output."""

from collections.abc import Iterator, Sequence

from spct_jax.data.comparison import Turn
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.layouts.base import Layout, Row, text, with_input
from spct_jax.errors import InputError


def _demonstrations(row: Row, _: str) -> Iterator[Demonstration]:
    yield Demonstration(turns(row), [text(row, "output")])


def turns(row: Row) -> list[Turn]:
    """The conversation of a row: the system's text, earlier turns, and the instruction with its input."""
    history = row.get("history") or []
    whole = isinstance(history, Sequence) and not isinstance(history, str)
    if not whole or not all(isinstance(h, Sequence) and len(h) == 2 for h in history):
        raise InputError("history is not a list of pairs of texts")
    system = [Turn("system", row["system"])] if row.get("system") else []
    earlier = [Turn(role, said) for h in history for role, said in zip(("user", "assistant"), h, strict=True)]
    return [*system, *earlier, Turn("user", with_input(row))]


LAYOUT = Layout(
    name="alpaca",
    row='{"instruction", "input"?, "output", "system"?, "history"?: [[instruction, output]]}',
    ties="there are none",
    licence="CC-BY-NC-4.0 for Stanford's data (not commercial); other sets in this form have their own",
    columns=("instruction", "output"),
    demonstrations=_demonstrations,
)
