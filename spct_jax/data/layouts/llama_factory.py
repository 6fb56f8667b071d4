"""LLaMA-Factory's files: instructions as in alpaca or sharegpt, and preferences with `chosen` and `rejected`."""

from collections.abc import Iterator, Mapping

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.layouts import alpaca, sharegpt
from spct_jax.data.layouts.base import Layout, LeftOut, Row, first_of, messages, pair, text
from spct_jax.errors import InputError


def _comparisons(row: Row, id: str) -> Iterator[Comparison]:
    yield pair(_turns(row), _answer(row, "chosen"), _answer(row, "rejected"), id)


def _demonstrations(row: Row, id: str) -> Iterator[Demonstration | LeftOut]:
    """Of a preference, the chosen answer."""
    if "chosen" in row:
        yield Demonstration(_turns(row), [_answer(row, "chosen")])
    else:
        yield from (sharegpt if "conversations" in row else alpaca).LAYOUT.demonstrations(row, id)


def _turns(row: Row) -> list[Turn]:
    if "conversations" in row:
        return sharegpt.system(row) + messages(row["conversations"], "conversations")
    return alpaca.turns(row)


def _answer(row: Row, field: str) -> str:
    value = row[first_of(row, [field])]
    if not isinstance(value, Mapping):
        return text(row, field)
    (turn,) = messages([value], field)
    if turn.role != "assistant":
        raise InputError(f"{field} is not the assistant's turn")
    return turn.content


LAYOUT = Layout(
    name="llama_factory",
    row='{"conversations": [{"from", "value"}], "chosen", "rejected": {"from", "value"}}, {"instruction", "input"?, "chosen", '
    '"rejected"}, or, for demonstrations, as in alpaca and sharegpt',
    ties="there are none",
    licence="Apache-2.0 for the examples that come with LLaMA-Factory",
    comparisons=_comparisons,
    demonstrations=_demonstrations,
)
