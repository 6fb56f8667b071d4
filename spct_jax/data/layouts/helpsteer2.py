"""HelpSteer2: human preferences between two responses, or human ratings of one."""

import re
from collections.abc import Iterator

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.layouts.base import Layout, LeftOut, Row, number, text
from spct_jax.errors import InputError

_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def _comparisons(row: Row, id: str) -> Iterator[Comparison | LeftOut]:
    turns = _turns(text(row, "prompt"))
    if "preference_strength" in row:
        strength = number(row, "preference_strength")
        if strength == 0:
            yield LeftOut("no unique best response")
            return
        responses = (text(row, "response_1"), text(row, "response_2"))
        if responses[0].strip() == responses[1].strip():
            raise InputError("chosen and rejected are the same text")
        # Its unit is kept: the better response is ahead by 1 (slightly) to 3 (much).
        yield Comparison(conversation=turns, responses=responses, scores=(max(-strength, 0), max(strength, 0)), id=id)
        return
    helpfulness = number(row, "helpfulness")
    if helpfulness == 2:
        yield LeftOut("rating neither good nor bad")
    else:
        yield Comparison(conversation=turns, responses=[text(row, "response")], scores=[float(helpfulness > 2)], id=id)


def _turns(prompt: str) -> list[Turn]:
    """Earlier turns stand in the prompt, each opened by a mark of its own."""
    first, *parts = _TURN.split(prompt)
    roles = {"User": "user", "Assistant": "assistant"}
    return [Turn("user", first), *(Turn(roles[name], said) for name, said in zip(parts[::2], parts[1::2], strict=True))]


LAYOUT = Layout(
    name="helpsteer2",
    row='of preference.jsonl: {"prompt", "response_1", "response_2", "preference_strength": -3 (the first far better) to 3}; '
    'of the rated files: {"prompt", "response", "helpfulness": 0 to 4}, a single response, right from 3 and wrong up to 1',
    ties="strength 0 and helpfulness 2 are left out",
    licence="CC-BY-4.0",
    columns=("prompt",),
    comparisons=_comparisons,
)
