"""What is imitated: a conversation and good answers to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spct_jax.data.comparison import Turn, as_texts, as_turns, check_alternation
from spct_jax.errors import InputError


@dataclass(frozen=True)
class Demonstration:
    """A conversation and one or more good answers to it, to imitate.

    Attributes:
        turns: the conversation: user and assistant in turn, the user first and last, perhaps a system turn before them; dicts
            are accepted as in `Comparison`.
        completions: the answers, none of them blank.

    Raises:
        InputError: in one line, for whatever is wrong.
    """

    turns: tuple[Turn, ...]
    completions: tuple[str, ...]

    def __post_init__(self):
        object.__setattr__(self, "turns", as_turns(self.turns, "turns"))
        check_alternation(self.turns)
        object.__setattr__(self, "completions", as_texts(self.completions, "completions", "completion"))


def of_object(record: Mapping[str, Any]) -> Demonstration:
    """A demonstration from one parsed JSON object, {"turns": [{"role", "content"}], "completions": [text]}.

    Raises:
        InputError: in one line, for whatever is wrong.
    """
    for key in ("turns", "completions"):
        if key not in record:
            raise InputError(f"missing field {key!r}")
    return Demonstration(record["turns"], record["completions"])
