"""`scores.jsonl`: the votes of a run, one item a line, from which all figures follow without a model.

The format is that of `recorded`, with what a stranger to the data must know (`n`, `best`, `label`); greedy votes are an object
of the same form in the field `greedy`.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from spct_jax.data.jsonl import write_jsonl
from spct_jax.errors import InputError
from spct_jax.evaluation import recorded
from spct_jax.evaluation.benchmarks.base import Item
from spct_jax.evaluation.measures import GREEDY, SAMPLED
from spct_jax.evaluation.recorded import Recorded

SCORES = "scores.jsonl"


def write(path: str | os.PathLike, votes: Mapping[str, Sequence[Recorded]], items: Sequence[Item]) -> None:
    """Writes the votes on items, `SAMPLED` and perhaps `GREEDY` ones, in the order of the items."""
    lines = []
    for index, item in enumerate(items):
        known = {"n": item.n, "best": item.best, "label": item.label}
        more = {name: value for name, value in known.items() if value is not None}
        if GREEDY in votes:
            greedy = recorded.to_json(votes[GREEDY][index])
            more[GREEDY] = {name: value for name, value in greedy.items() if name not in ("id", "subset")}
        lines.append(recorded.to_json(votes[SAMPLED][index], **more))
    write_jsonl(path, lines)


def read(path: str | os.PathLike) -> dict[str, list[Recorded]]:
    """The votes in a file that `write` made, or in anybody's of the same format.

    Raises:
      InputError: naming the file and what is wrong; greedy votes on some items only are wrong, too.
    """
    sampled = recorded.read(path)
    greedy = []
    for one in sampled:
        if (found := one.line.get(GREEDY)) is None:
            continue
        try:
            if not isinstance(found, Mapping):
                raise InputError(f"not an object ({type(found).__name__})")
            votes = recorded.from_json({"id": one.id, **found}).votes
        except InputError as error:
            raise InputError(f"{one.where}: item {one.id!r}: {GREEDY}: {error}") from None
        greedy.append(dataclasses.replace(one, votes=votes))
    if greedy and len(greedy) < len(sampled):
        raise InputError(f"{path}: {len(greedy):,} of {len(sampled):,} items have {GREEDY} votes; all must, or none")
    return {GREEDY: greedy, SAMPLED: sampled} if greedy else {SAMPLED: sampled}
