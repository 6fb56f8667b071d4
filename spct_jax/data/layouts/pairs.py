"""Pairs of responses under the usual names, in any of the usual forms."""

from collections.abc import Iterator, Sequence

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.layouts.base import Layout, Row, first_of, messages, pair, split_answers, text
from spct_jax.errors import InputError


def _comparisons(row: Row, id: str) -> Iterator[Comparison]:
    for field in ("chosen", "rejected"):
        first_of(row, [field])
    if not isinstance(row["chosen"], Sequence | str):
        raise InputError(f"chosen is neither a text nor a list of turns ({type(row['chosen']).__name__})")
    if isinstance(row["chosen"], str):
        yield pair(_prompt(row), text(row, "chosen"), text(row, "rejected"), id)
    else:
        turns, chosen, rejected = split_answers(row["chosen"], row["rejected"])
        yield pair(turns or _prompt(row), chosen, rejected, id)


def _prompt(row: Row) -> list[Turn] | str:
    prompt = row.get("prompt")
    return text(row, "prompt") if prompt is None or isinstance(prompt, str) else messages(prompt, "prompt")


LAYOUT = Layout(
    name="pairs",
    row='{"prompt": text or [{"role", "content"}], "chosen": text or its one turn, "rejected": as chosen}, or {"chosen", '
    '"rejected"} as whole conversations that differ in the last turn',
    ties="there are none",
    licence="that of the data set",
    columns=("chosen", "rejected"),
    comparisons=_comparisons,
)
