"""What a layout is, and what several of them share."""

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.demonstration import Demonstration
from spct_jax.errors import InputError

Row = Mapping[str, Any]


class LeftOut(NamedTuple):
    """In place of a record that the layout leaves out by its own rules, such as a tie: counted, and never an error."""

    reason: str


@dataclass(frozen=True)
class Layout:
    """How the rows of a public data set become records.

    The functions take a row and the id for its record; where they make several of a row, they number them. They raise
    InputError, without file or row, for a row that is not what the layout says.

    Attributes:
        name: what it is called in a source.
        row: what a row is.
        ties: what becomes of rows without one best response.
        licence: what a user should know of the public data's licence.
        columns: the fields that every row has; a parquet file without one of them is refused as a whole.
        comparisons: makes comparisons of a row; None where rows are none.
        demonstrations: makes demonstrations of a row; None where rows are none.
        brings_ids: whether a row may bring an id, in the field `id`, that must be unique. What public data sets call an id is
            not relied on.
    """

    name: str
    row: str
    ties: str
    licence: str
    columns: tuple[str, ...] = ()
    comparisons: Callable[[Row, str], Iterable[Comparison | LeftOut]] | None = None
    demonstrations: Callable[[Row, str], Iterable[Demonstration | LeftOut]] | None = None
    brings_ids: bool = False


def text(row: Row, field: str) -> str:
    """A field that must be a string and not blank."""
    if field not in row:
        raise InputError(f"missing field {field!r}")
    value = row[field]
    if not isinstance(value, str):
        raise InputError(f"{field} is not a string ({type(value).__name__})")
    if not value.strip():
        raise InputError(f"empty {field}")
    return value


def number(row: Row, field: str) -> float:
    """A field that must be a number, and one that a float can hold."""
    if field not in row:
        raise InputError(f"missing field {field!r}")
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{field} is not a number ({type(value).__name__})")
    if not abs(value) <= sys.float_info.max:
        raise InputError(f"{field} is not finite ({value!r:.40})")
    return value


def first_of(row: Row, fields: Sequence[str]) -> str:
    """The first of these names that the row has as a field."""
    for field in fields:
        if field in row:
            return field
    raise InputError(f"missing field {' or '.join(map(repr, fields))}")


def with_input(row: Row, instruction: str = "instruction", context: str = "input") -> str:
    """An instruction, with the text that it is about after a blank line if there is one."""
    extra = row.get(context)
    if extra is not None and not isinstance(extra, str):
        raise InputError(f"{context} is not a string ({type(extra).__name__})")
    return text(row, instruction) + (f"\n\n{extra}" if extra and extra.strip() else "")


def pair(conversation: Sequence[Turn] | str, chosen: str, rejected: str, id: str) -> Comparison:
    """A comparison of two responses, scored 1 and 0. Which comes first follows from a hash of the two, so not from the label.

    Raises:
        InputError: they are the same text, or one is blank.
    """
    if chosen.strip() == rejected.strip() and chosen.strip():
        raise InputError("chosen and rejected are the same text")
    both = "\0".join(sorted((chosen, rejected))).encode(errors="surrogatepass")
    swap = (hashlib.blake2b(both, digest_size=1).digest()[0] % 2 == 1) == (chosen < rejected)
    return Comparison(
        conversation=[Turn("user", conversation)] if isinstance(conversation, str) else conversation,
        responses=(rejected, chosen) if swap else (chosen, rejected),
        scores=(0, 1) if swap else (1, 0),
        id=id,
    )


def labelled(query: str, responses: tuple[str, str], best: int, id: str) -> Comparison:
    """A comparison of two responses in the data's own order, scored 1 (the one with index `best`) and 0."""
    if responses[0].strip() == responses[1].strip():
        raise InputError("chosen and rejected are the same text")
    return Comparison(conversation=[Turn("user", query)], responses=responses, scores=(1 - best, best), id=id)


def rated(query: str, response: str, rating: float, bad: float, good: float, id: str) -> Comparison | LeftOut:
    """A single response, right (score 1) if its rating is at least `good`, wrong (0) if at most `bad`, else left out."""
    if bad < rating < good:
        return LeftOut("rating neither good nor bad")
    return Comparison(conversation=[Turn("user", query)], responses=[response], scores=[float(rating >= good)], id=id)


def messages(value: Any, field: str) -> list[Turn]:
    """Turns from a list of {"role", "content"} or {"from", "value"}; human and gpt are user and assistant."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f"{field} is not a list of turns ({type(value).__name__})")
    turns = []
    for message in value:
        if not isinstance(message, Mapping):
            raise InputError(f"a turn of {field} is not an object ({type(message).__name__})")
        role, content = ("from", "value") if "from" in message else ("role", "content")
        for key in (role, content):
            if key not in message:
                raise InputError(f"a turn of {field} has no {key!r}")
        name = message[role]
        turns.append(Turn(_ROLES.get(name, name) if isinstance(name, str) else name, message[content]))
    return turns


_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant"}


def split_answers(chosen: Any, rejected: Any) -> tuple[list[Turn], str, str]:
    """The conversation that two lists of messages share, and the last message of each, which must be the assistant's.

    Raises:
        InputError: they are not that.
    """
    first, second = messages(chosen, "chosen"), messages(rejected, "rejected")
    for turns, field in ((first, "chosen"), (second, "rejected")):
        if not turns or turns[-1].role != "assistant":
            raise InputError(f"{field} does not end with the assistant's turn")
    if first[:-1] != second[:-1]:
        raise InputError("chosen and rejected do not answer the same conversation")
    return first[:-1], first[-1].content, second[-1].content
