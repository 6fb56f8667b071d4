"""The one record: a conversation, the responses to it, and optionally the scores people gave them."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from spct_jax.errors import InputError

_ROLES = {"system": "system", "user": "user", "assistant": "assistant", "model": "assistant"}

CONDITIONS = ("principles", "reference")
"""Fields of a `Comparison` under which it is judged. Only judges read them, and `from_json` does not."""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: 'system', 'user' or 'assistant'; 'model' is accepted and becomes 'assistant'.
        content: the text, as it was written.

    Raises:
        InputError: for another role, or content that is not a string.
    """

    role: str
    content: str

    def __post_init__(self):
        if not isinstance(self.role, str) or self.role not in _ROLES:
            raise InputError(f"unknown role ({self.role!r}; use system, user or assistant)")
        if not isinstance(self.content, str):
            raise InputError(f"content of a turn is not a string ({type(self.content).__name__})")
        object.__setattr__(self, "role", _ROLES[self.role])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A conversation and n >= 1 responses to its last turn.

    Lists and plain dicts are accepted and become tuples of `Turn`, strings and floats.

    Attributes:
        conversation: the turns; the last one is the user's, is not blank, and is the query.
        responses: n texts, none of them blank.
        scores: n finite numbers, higher is better, or None where nobody scored. A single response has (0,) or (1,).
        id: a name that is unique in its file; it also seeds the orders of the responses.
        principles: what a judge judges by instead of principles of its own, or None.
        reference: an answer to the query that is known to be right, for a judge whose template shows one, or None.

    Raises:
        InputError: in one line, for whatever is wrong.
    """

    conversation: tuple[Turn, ...]
    responses: tuple[str, ...]
    scores: tuple[float, ...] | None = None
    id: str = ""
    principles: str | None = None
    reference: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "conversation", as_turns(self.conversation, "conversation"))
        object.__setattr__(self, "responses", as_texts(self.responses, "responses", "response"))
        if self.scores is not None:
            object.__setattr__(self, "scores", _as_scores(self.scores, len(self.responses)))
        if not isinstance(self.id, str):
            raise InputError(f"id is not a string ({type(self.id).__name__})")
        for field in CONDITIONS:
            text = getattr(self, field)
            if not isinstance(text, str | None):
                raise InputError(f"{field} is not a string ({type(text).__name__})")
            if text is not None and not text.strip():
                raise InputError(f"empty {field}")

    @property
    def n(self) -> int:
        """The number of responses."""
        return len(self.responses)

    @property
    def characters(self) -> int:
        """The length of all its texts together."""
        conditions = sum(len(getattr(self, field) or "") for field in CONDITIONS)
        return sum(len(turn.content) for turn in self.conversation) + sum(map(len, self.responses)) + conditions

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of all that a verdict on it depends on: its id and texts, not the scores."""
        turns = [(turn.role, turn.content) for turn in self.conversation]
        conditions = {field: getattr(self, field) for field in CONDITIONS if getattr(self, field) is not None}
        content = json.dumps([self.id, turns, self.responses, *([conditions] if conditions else [])]).encode()
        return hashlib.blake2b(content, digest_size=8).hexdigest()

    @property
    def query(self) -> str:
        """The text of the last turn."""
        return self.conversation[-1].content

    @property
    def best(self) -> int | None:
        """The index of the response with the highest score; None without scores or when several share it."""
        return None if self.scores is None else unique_argmax(self.scores)


def unique_argmax(values: Sequence[float]) -> int | None:
    """The index of the largest value, or None when several are largest."""
    top = max(values)
    return values.index(top) if values.count(top) == 1 else None


def as_turns(value: Any, field: str) -> tuple[Turn, ...]:
    """Turns from a sequence of `Turn` or {"role", "content"}; InputError unless the last one is the user's and not blank."""
    if not _is_list(value):
        raise InputError(f"{field} is not a list of turns ({type(value).__name__})")
    turns = tuple(turn if isinstance(turn, Turn) else _as_turn(turn, field) for turn in value)
    if not turns:
        raise InputError(f"empty {field}")
    if turns[-1].role != "user":
        raise InputError(f"the last turn of the {field} is not the user's ({turns[-1].role})")
    if not turns[-1].content.strip():
        raise InputError(f"the last turn of the {field} is empty")
    return turns


def check_alternation(turns: Sequence[Turn]) -> None:
    """InputError unless, after a system turn if any, user and assistant alternate from user to user: what a chat format has."""
    roles = [turn.role for turn in turns]
    rest = roles[1:] if roles[:1] == ["system"] else roles
    if rest != ["user", "assistant"] * (len(rest) // 2) + ["user"]:
        raise InputError(
            f"turns must alternate from user to user after at most one system turn (they are {', '.join(rest) or 'absent'})"
        )


def as_texts(value: Any, field: str, item: str) -> tuple[str, ...]:
    """Strings from a sequence of them; InputError when there is none, or one is blank or not a string."""
    if not _is_list(value):
        raise InputError(f"{field} is not a list of strings ({type(value).__name__})")
    if not value:
        raise InputError(f"no {field}")
    for index, text in enumerate(value):
        if not isinstance(text, str):
            raise InputError(f"{item} is not a string (number {index + 1} is {type(text).__name__})")
        if not text.strip():
            raise InputError(f"empty {item} (number {index + 1})")
    return tuple(value)


def from_json(record: Mapping[str, Any], where: str, default_id: str | int) -> Comparison:
    """`of_object`, with `where` before every error: 'file:line'.

    Raises:
        InputError: '<where>: <what is wrong>'.
    """
    try:
        return of_object(record, default_id)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def of_object(record: Mapping[str, Any], default_id: str | int) -> Comparison:
    """A comparison from one parsed JSON object.

    Args:
        record: {"id"?, "conversation": [{"role", "content"}, ...] or "query": text, "responses": [text], "scores"?}.
        default_id: the id of a record that has none.

    Raises:
        InputError: in one line, for whatever is wrong.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"not a JSON object ({type(record).__name__})")
    if ("conversation" in record) == ("query" in record):
        raise InputError(
            "both 'conversation' and 'query' given" if "query" in record else "missing field 'conversation' (or 'query')"
        )
    if "responses" not in record:
        raise InputError("missing field 'responses'")
    if "query" in record and not isinstance(record["query"], str):
        raise InputError(f"query is not a string ({type(record['query']).__name__})")
    if "query" in record and not record["query"].strip():
        raise InputError("empty query")
    return Comparison(
        conversation=[Turn("user", record["query"])] if "query" in record else record["conversation"],
        responses=record["responses"],
        scores=record.get("scores"),
        id=str(default_id) if (name := given_id(record)) is None else str(name),
    )


def given_id(record: Mapping[str, Any]) -> str | int | None:
    """The id that a record brings, None where it brings none; InputError when it is neither a string nor an integer."""
    id = record.get("id")
    if isinstance(id, bool) or not isinstance(id, str | int | None):
        raise InputError(f"id is not a string or an integer ({type(id).__name__})")
    return id


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The JSON object that `from_json` reads back; without 'scores' where there are none."""
    record = {
        "id": comparison.id,
        "conversation": [{"role": turn.role, "content": turn.content} for turn in comparison.conversation],
        "responses": list(comparison.responses),
    }
    return record if comparison.scores is None else record | {"scores": list(comparison.scores)}


def _as_turn(value: Any, field: str) -> Turn:
    if not isinstance(value, Mapping):
        raise InputError(f"a turn of the {field} is not an object ({type(value).__name__})")
    for key in ("role", "content"):
        if key not in value:
            raise InputError(f"a turn of the {field} has no {key!r}")
    return Turn(value["role"], value["content"])


def _as_scores(value: Any, n: int) -> tuple[float, ...]:
    if not _is_list(value):
        raise InputError(f"scores is not a list of numbers ({type(value).__name__})")
    if len(value) != n:
        raise InputError(f"scores of the wrong length ({len(value)} for {n} responses)")
    for score in value:
        if isinstance(score, bool) or not isinstance(score, Real):
            raise InputError(f"score is not a number ({type(score).__name__})")
    try:
        scores = tuple(float(score) for score in value)
    except OverflowError:
        scores = (math.inf,)
    if not all(map(math.isfinite, scores)):
        raise InputError("score is not finite")
    return scores


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
