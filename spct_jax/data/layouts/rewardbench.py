"""RewardBench, RewardBench 2 and RewardBench's prior sets. Benchmarks."""

from collections.abc import Iterator, Sequence

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.layouts.base import Layout, LeftOut, Row, first_of, messages, pair, text
from spct_jax.errors import InputError


def _comparisons(row: Row, id: str) -> Iterator[Comparison | LeftOut]:
    prompt, chosen, rejected = (row[first_of(row, [field])] for field in ("prompt", "chosen", "rejected"))
    turns = [Turn("user", text(row, "prompt"))] if isinstance(prompt, str) else messages(prompt, "prompt")
    if isinstance(chosen, str):
        yield pair(turns, text(row, "chosen"), text(row, "rejected"), id)
        return
    if not all(isinstance(value, Sequence) and not isinstance(value, str) for value in (chosen, rejected)):
        raise InputError("chosen and rejected are neither texts nor lists of texts")
    if len(chosen) != 1:
        yield LeftOut("no unique best response")
        return
    scores = [1] + [0] * len(rejected)
    made = Comparison(conversation=turns, responses=[*chosen, *rejected], scores=scores, id=id)
    best, *others = (response.strip() for response in made.responses)
    if best in others:
        raise InputError("chosen and rejected are the same text")
    yield made


LAYOUT = Layout(
    name="rewardbench",
    row='{"prompt": text or messages, "chosen": text, "rejected": text, "subset", "id"}; of RewardBench 2, `chosen` and '
    "`rejected` are lists, and the row is one comparison of all of them",
    ties="left out where several responses are right (the Ties subset of RewardBench 2)",
    licence="ODC-BY, and that of each part; for evaluation",
    columns=("prompt", "chosen", "rejected"),
    comparisons=_comparisons,
)
