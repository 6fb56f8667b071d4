"""Which verdicts a report tells in full: right ones, wrong ones and ties, spread evenly over the benchmark."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from spct_jax.evaluation.benchmarks.base import Answer
from spct_jax.grm import voting

WANTED = {"Wrong": 4, "Right": 4, "Tied": 2}
_KINDS = ("Wrong", "Right", "Tied", "Unread")
LONGEST = 6000
"""Characters of a text that are shown."""


def choose(
    answers: Sequence[Answer],
    verdicts: Callable[[set[str]], Iterable[tuple[str, Mapping[str, Any]]]],
) -> list[dict[str, Any]]:
    """Ten verdicts on items that have a right response, or as many as there are: if possible 4 wrong, 4 right and 2 tied.

    Args:
      answers: on items that were judged whole.
      verdicts: gives ids and a judge's verdicts on the items with these ids, for the text of a critique.
    """
    kinds: dict[str, list[Answer]] = {kind: [] for kind in _KINDS}
    for answer in answers:
        if answer.item.best is not None and answer.item.n > 1:
            kinds[_outcome(answer)].append(answer)
    counts = {kind: min(WANTED.get(kind, 0), len(kinds[kind])) for kind in _KINDS}
    for kind in _KINDS:  # where there are too few of one kind, others take their place
        counts[kind] = min(len(kinds[kind]), counts[kind] + sum(WANTED.values()) - sum(counts.values()))
    chosen = [answer for kind in _KINDS for answer in _spread(kinds[kind], counts[kind])]
    texts = dict(verdicts({answer.item.id for answer in chosen}))
    return [_example(answer, texts.get(answer.item.id)) for answer in chosen]


def _outcome(answer: Answer) -> str:
    top = voting.winners(answer.totals)
    if not top:
        return "Unread"
    return "Tied" if len(top) > 1 else "Right" if top[0] == answer.item.best else "Wrong"


def _spread(answers: Sequence[Answer], count: int) -> list[Answer]:
    return [answers[(2 * index + 1) * len(answers) // (2 * count)] for index in range(count)]


def _example(answer: Answer, verdict: Mapping[str, Any] | None) -> dict[str, Any]:
    item = answer.item
    example = {
        "id": item.id,
        "outcome": _outcome(answer),
        "subset": item.subset,
        "best": item.best,
        "votes": len(answer.votes),
        "valid": sum(vote.valid for vote in answer.votes),
        "totals": answer.totals,
    }
    if item.comparison is not None:
        turns = item.comparison.conversation
        example["conversation"] = [(turn.role, _cut(turn.content)) for turn in turns]
        example["responses"] = [_cut(text) for text in item.comparison.responses]
    if verdict is not None:
        first = verdict["samples"][0]
        example |= {"critique": _cut(first["text"]), "order": first["order"]}
    return example


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n[... {len(text) - LONGEST:,} more characters]"
