"""ShareGPT: whole conversations, of which the last answer is imitated."""

from collections.abc import Iterator

from spct_jax.data.comparison import Turn, check_alternation
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.layouts.base import Layout, LeftOut, Row, first_of, messages
from spct_jax.errors import InputError


def _demonstrations(row: Row, _: str) -> Iterator[Demonstration | LeftOut]:
    field = first_of(row, ["conversations", "messages"])
    if isinstance(row[field], list) and any(_is_tool(message) for message in row[field]):
        yield LeftOut("turns of tools")
        return
    turns = system(row) + messages(row[field], field)
    while turns and turns[-1].role != "assistant":
        turns.pop()
    if not turns:
        yield LeftOut("no answer")
        return
    *turns, answer = turns
    try:
        check_alternation(turns)
    except InputError:
        yield LeftOut("turns do not alternate")
        return
    yield Demonstration(turns, [answer.content])


def system(row: Row) -> list[Turn]:
    """The system's turn, where a row has it in a field of its own."""
    return [Turn("system", row["system"])] if row.get("system") else []


def _is_tool(message: object) -> bool:
    return isinstance(message, dict) and message.get("from", message.get("role")) in _TOOLS


_TOOLS = ("function_call", "function", "observation", "tool")

LAYOUT = Layout(
    name="sharegpt",
    row='{"conversations": [{"from": human, gpt or system, "value"}], "system"?}, or {"messages": [{"role", "content"}]}; '
    "what comes after the last answer is not used",
    ties="there are none; conversations with tools, without an answer or whose turns do not alternate are left out",
    licence="unclear for ShareGPT itself (users' conversations with ChatGPT); other sets in this form have their own",
    demonstrations=_demonstrations,
)
