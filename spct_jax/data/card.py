"""What is in a source, before anything is trained on it: figures for machines; `card_text` makes a page of them."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tqdm

from spct_jax.data import build, draws, duplicates, fingerprints
from spct_jax.data.comparison import Comparison
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.index import Records
from spct_jax.data.jsonl import ReadReport

LIMITS = (512, 1024, 2048, 4096, 8192, 16384)
"""Lengths of prompts for which it is counted how many are longer."""
SHOWN, LISTED = 3, 5
"""How many records are shown, and how many copies and skipped rows are named."""
TIE, UNSCORED = -1, -2
"""In place of the position of the best response."""


def make(
    records: Records,
    report: ReadReport,
    *,
    length: Callable[[str], int],
    prompt_length: Callable[[Any], int] | None = None,
    most: int = 20_000,
) -> dict[str, Any]:
    """The figures of a source.

    Args:
        records: all that could be read, ties included.
        report: what became of its rows.
        length: of a text, in tokens or characters.
        prompt_length: of the whole prompt that a model gets for a record, in tokens; None where that is not known.
        most: lengths are those of so many records at most, a sample that is always the same.

    Returns:
        {"records", "prompts", "duplicates", "responses", "best", "lengths", "examples", ..}, as `card_text.render` reads them.
    """
    facts = _facts(records)
    first = duplicates.first_of(facts["record"])
    copies = np.flatnonzero(first != np.arange(len(records)))
    chosen = draws.sample(0, "lengths", len(records), most)
    shown = draws.sample(0, "card", len(records), SHOWN)
    kind = "demonstrations" if isinstance(records[0], Demonstration) else "comparisons"
    card = {
        "kind": kind,
        "read": report.read,
        "records": len(records),
        "skipped": report.skipped,
        "skipped_examples": report.examples,
        "prompts": len(np.unique(facts["prompt"])),
        "duplicates": len(copies),
        "duplicate_examples": [[records.where(i), records.where(first[i])] for i in copies[:LISTED]],
        "answers": _counts(facts["n"]),
        "turns": _counts(facts["turns"]),
        "measured": len(chosen),
        "lengths": _lengths(records, chosen, length, prompt_length),
        "examples": [{"where": records.where(i), "record": build.as_json(records[i])} for i in shown],
    }
    return card | (_choices(facts) if kind == "comparisons" else {})


def _facts(records: Records) -> dict[str, np.ndarray]:
    """Int64[N] each: digests of prompt and record, number of answers and turns, and what `_choice` says."""
    found = np.empty((len(records), 8), np.int64)
    for number, record in enumerate(tqdm.tqdm(records, "reading", delay=2, unit="record")):
        answers, turns = fingerprints.answers_of(record), fingerprints.turns_of(record)
        found[number] = (*fingerprints.of(record), len(answers), len(turns), *_choice(record))
    names = ("prompt", "record", "n", "turns", "best", "longest", "shortest", "same")
    return dict(zip(names, found.T, strict=True))


def _choice(record: Comparison | Demonstration) -> tuple[int, int, int, int]:
    """(position of the best response, whether it is longer, shorter than all others; whether all responses are the same)."""
    if isinstance(record, Demonstration):
        return UNSCORED, 0, 0, 0
    same = record.n > 1 and len({response.strip() for response in record.responses}) < record.n
    best = UNSCORED if record.scores is None else TIE if record.best is None else record.best
    if best < 0 or record.n == 1:
        return best, 0, 0, same
    own = len(record.responses[best])
    others = [len(response) for i, response in enumerate(record.responses) if i != best]
    return best, own > max(others), own < min(others), same


def _choices(facts: dict[str, np.ndarray]) -> dict[str, Any]:
    several = facts["n"] > 1
    chosen = several & (facts["best"] >= 0)
    return {
        "unscored": int((facts["best"] == UNSCORED).sum()),
        "ties": int((facts["best"] == TIE).sum()),
        "same_responses": int(facts["same"].sum()),
        "decided": int(chosen.sum()),
        "best_position": _counts(facts["best"][chosen] + 1),
        "best_is_longest": int(facts["longest"].sum()),
        "best_is_shortest": int(facts["shortest"].sum()),
    }


def _lengths(
    records: Records, chosen: Sequence[int], length: Callable[[str], int], prompt_length: Callable[[Any], int] | None
) -> dict[str, Any]:
    """Distributions: of what is asked (all turns), of each answer and, where it is known, of the whole prompt."""
    asked, answers, prompts = [], [], []
    for i in tqdm.tqdm(chosen, "measuring", delay=2, unit="record"):
        record = records[i]
        asked.append(sum(length(turn.content) for turn in fingerprints.turns_of(record)))
        answers += map(length, fingerprints.answers_of(record))
        if prompt_length:
            prompts.append(prompt_length(record))
    found = {"conversation": asked, "answer": answers} | ({"prompt": prompts} if prompts else {})
    return {name: _distribution(np.array(values)) for name, values in found.items()}


def _distribution(values: np.ndarray) -> dict[str, Any]:
    named = {"5": 5, "25": 25, "50": 50, "75": 75, "95": 95, "99": 99}
    return {
        "mean": float(values.mean()),
        "least": int(values.min()),
        "percentiles": {name: float(np.percentile(values, percent)) for name, percent in named.items()},
        "most": int(values.max()),
        "longer_than": {str(limit): int((values > limit).sum()) for limit in LIMITS},
    }


def _counts(values: np.ndarray) -> dict[str, int]:
    """Value -> how many there are."""
    kinds, counts = np.unique(values, return_counts=True)
    return {str(kind): int(count) for kind, count in itertools.zip_longest(kinds, counts)}
