"""A fixed sample of verdicts for a person to read: is what a critique says true of the responses, or is it decoration?

The sample is a file of JSON lines, each with all that is needed to judge one verdict and an empty `judgement` and `comment`. A
person writes one of `JUDGEMENTS` into each; what is counted is what stands there.
"""

import collections
import os
from collections.abc import Mapping, Sequence
from typing import Any

import human_credits

from spct_jax.data.jsonl import read_jsonl, write_jsonl
from spct_jax.errors import InputError
from spct_jax.grm import voting
from spct_jax.reporting import markdown, run_files
from spct_jax.storage import digests, paths

JUDGEMENTS = {
    "sensible": "the principles fit the question, and the critique says something true that bears on it",
    "empty": "nothing false, but nothing that tells these responses apart: it could stand under any others",
    "false": "what it says of a response is not so, or its scores go against it",
}
SIZE = 50
LONGEST = 700
"""Characters of a text that are shown on a page."""


def draw(run: run_files.RunFiles, label: str) -> list[dict[str, Any]]:
    """The first `SIZE` greedy verdicts by a digest of their ids, among those whose text was kept."""
    rows = [row for row in run.rows(label, "greedy") if row["id"] in run.problems and row["samples"][0].get("text")]
    return [_entry(run.problems[row["id"]], row) for row in sorted(rows, key=_place)[:SIZE]]


def _place(row: Mapping) -> str:
    return digests.of_json(["verdict to read", row["id"]])


def _entry(problem: Mapping, row: Mapping) -> dict[str, Any]:
    sample = row["samples"][0]
    order = sample["order"] or range(row["n"])
    return {
        "id": row["id"],
        "judgement": "",
        "comment": "",
        "query": problem["query"],
        "responses_as_shown": [problem["responses"][i] for i in order],
        "best_as_shown": list(order).index(row["best"]) + 1,
        "verdict": sample["text"],
        "scores_as_shown": None if sample["scores"] is None else [sample["scores"][i] for i in order],
        "credit": voting.expected_credit(sample["scores"], row["best"], row["n"]),
    }


def settle(path: str | os.PathLike, drawn: Sequence[Mapping]) -> list[dict[str, Any]]:
    """The sample in a file, which is written where there is none.

    Raises:
      InputError: naming file and line, of a judgement that is none of `JUDGEMENTS` or of another verdict than was drawn.
    """
    if not paths.of(path).exists():
        write_jsonl(path, drawn)
        return list(map(dict, drawn))
    kept, left = [], {entry["id"]: entry for entry in drawn}
    for line, entry in read_jsonl(path):
        expected = left.pop(entry.get("id"), None)
        if expected is None or entry.get("verdict") != expected["verdict"]:
            raise InputError(f"{path}:{line}: not a verdict of this run's sample; give another --sample")
        if entry.get("judgement", "") not in ("", *JUDGEMENTS):
            raise InputError(f"{path}:{line}: judgement is none of {', '.join(JUDGEMENTS)} ({entry['judgement']!r})")
        kept.append(expected | {name: entry.get(name, "") for name in ("judgement", "comment")})
    if left:
        raise InputError(f"{path}: {len(left)} verdicts of this run's sample are missing; give another --sample")
    return kept


def counts(entries: Sequence[Mapping]) -> str:
    """How many verdicts are what, in all and by source, and how often verdicts of each kind are right."""
    judged = [entry for entry in entries if entry["judgement"]]
    sources = list(dict.fromkeys(human_credits.source_of(entry["id"]) for entry in judged))
    rows = []
    for kind in JUDGEMENTS:
        of_kind = [entry for entry in judged if entry["judgement"] == kind]
        by_source = collections.Counter(human_credits.source_of(entry["id"]) for entry in of_kind)
        right = f"{sum(entry['credit'] for entry in of_kind):g} of {len(of_kind)}" if of_kind else "–"
        rows.append([kind, len(of_kind), *(by_source[source] for source in sources), right])
    meaning = "; ".join(f"*{name}*: {text}" for name, text in JUDGEMENTS.items())
    waiting = f" {len(entries) - len(judged)} are not read yet." if len(judged) < len(entries) else ""
    table = markdown.table(["verdicts", "all", *sources, "right"], rows) if judged else ""
    said = f"A fixed sample of {len(entries)} greedy verdicts, for a person to read: {meaning}.{waiting}"
    return "\n\n".join(filter(None, [said, table]))


def to_read(entries: Sequence[Mapping], count: int) -> str:
    """The first so many, each with its question, its responses, what is best, the verdict, and what its reader said."""
    parts = []
    for number, entry in enumerate(entries[:count], start=1):
        lines = [f"[question] {_short(entry['query'])}"]
        lines += [f"[response {i}] {_short(text)}" for i, text in enumerate(entry["responses_as_shown"], start=1)]
        said = "no scores could be read" if entry["scores_as_shown"] is None else f"credit {entry['credit']:g}"
        parts.append(f"## {number}. `{entry['id']}`: the best is response {entry['best_as_shown']}; {said}")
        parts.append(markdown.fence("\n\n".join(lines)))
        parts.append(markdown.fence(entry["verdict"].strip()))
        if entry["judgement"]:
            parts.append(f"**{entry['judgement'].capitalize()}.** {markdown.escape(entry['comment'])}".strip())
    return "\n\n".join(parts)


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()} [...]"
