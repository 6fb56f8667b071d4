"""Anthropic's hh-rlhf: transcripts that differ in the assistant's last answer."""

import os
import re
from collections.abc import Iterator

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.layouts.base import Layout, LeftOut, Row, pair, text
from spct_jax.errors import InputError

_ANSWER = "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def _comparisons(row: Row, id: str) -> Iterator[Comparison | LeftOut]:
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    for field, transcript in (("chosen", chosen), ("rejected", rejected)):
        if not transcript.startswith("\n\nHuman:"):
            raise InputError(f"{field} does not open with a blank line and 'Human:'")
    split = os.path.commonprefix([chosen, rejected]).rfind(_ANSWER)
    if split < 0:
        raise InputError("the transcripts have no turn of the assistant in common")
    _, *parts = _TURN.split(chosen[:split])
    turns = [Turn(_ROLES[name], said.strip()) for name, said in zip(parts[::2], parts[1::2], strict=True)]
    first, second = (transcript[split + len(_ANSWER) :].strip() for transcript in (chosen, rejected))
    if _TURN.search(first) or _TURN.search(second):
        yield LeftOut("several turns in one response")
    elif [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        yield LeftOut("turns do not alternate")
    elif not all(turn.content for turn in turns):
        yield LeftOut("empty turn")
    else:
        yield pair(turns, first, second, id)


LAYOUT = Layout(
    name="hh_rlhf",
    row='{"chosen", "rejected"}: transcripts of "\\n\\nHuman:" and "\\n\\nAssistant:" turns, split at the last answer that '
    "both open",
    ties="there are none; conversations whose turns are empty or do not alternate are left out",
    licence="MIT; the text is offensive in parts; its authors mean it for reward models, not for supervised training of agents",
    columns=("chosen", "rejected"),
    comparisons=_comparisons,
)
