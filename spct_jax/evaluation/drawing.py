"""Votes on the items of a benchmark, drawn by a judge into files with which an interrupted run goes on.

`comparisons.jsonl` is what the judge is shown, an input of the judge command; each pass over it leaves one of that command's
outputs, resumed as that command does. Both stay, so that `python -m spct_jax.judge --explain=ID` can tell any verdict.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from spct_jax.data import comparison as comparisons
from spct_jax.data.comparison import CONDITIONS, Comparison
from spct_jax.data.jsonl import read_jsonl
from spct_jax.errors import InputError
from spct_jax.evaluation import recorded
from spct_jax.evaluation.benchmarks.base import Item
from spct_jax.evaluation.recorded import Recorded, Vote
from spct_jax.judging import files as judging_files
from spct_jax.runtime import distributed
from spct_jax.storage import files
from spct_jax.storage.paths import Path

COMPARISONS = "comparisons.jsonl"


def keep_comparisons(directory: Path, items: Sequence[Item]) -> None:
    """Writes what the judge is shown, and what it judges by; InputError where there are verdicts on something else."""
    path = directory / COMPARISONS
    shown = [_line(item.comparison) for item in items if item.comparison is not None]
    text = "".join(json.dumps(record) + "\n" for record in shown)
    if path.exists() and path.read_text() != text:
        begun = [other.name.removesuffix(".settings.json") for other in files.matching(directory, "*.jsonl.settings.json")]
        if begun:
            raise InputError(
                f"{path}: {begun[0]} answers other items than --data, --limit and --by_pairs give now, or judges by other "
                "--principles or --reference; choose another --output"
            )
    files.write(path, text)


def _line(comparison: Comparison) -> dict[str, Any]:
    conditions = {field: text for field in CONDITIONS if (text := getattr(comparison, field)) is not None}
    return comparisons.to_json(comparison) | conditions


def draw(
    directory: Path,
    name: str,
    items: Sequence[Item],
    load: Callable[[], Any],
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> tuple[list[Recorded], dict[str, int]]:
    """Draws the votes that are not there yet into `<name>.jsonl`.

    Args:
      directory: holds the comparisons, see `keep_comparisons`.
      name: of the pass.
      items: those of the benchmark.
      load: gives the judge; not called where nothing is left to draw.
      options: keyword arguments of `Judge.stream`.
      settings: what votes depend on; see `judging.files.judge_file`.

    Returns:
      The votes on every item, in order, and how many items have none, by reason: their k votes count as unread. Of several
      processes, which all call this, only the first gets any.

    Raises:
      InputError: the file was begun under other settings.
    """
    source, target = directory / COMPARISONS, directory / f"{name}.jsonl"
    if any(item.comparison is not None for item in items):
        judging_files.judge_file(str(source), str(target), load, options=options, settings=settings, on_bad="skip")
    if not distributed.is_first():
        return [], {}
    answers = (record for _, record in read_jsonl(target))
    votes, reasons = [], Counter()
    for item in items:
        record = {"error": item.unjudgeable} if item.comparison is None else next(answers)
        if "error" in record:
            reasons[record["error"].split(" (")[0]] += 1
            votes.append(Recorded(item.id, (Vote(truncated=False),) * options["k"], item.subset))
        else:
            votes.append(recorded.from_verdict(record, item.subset))
    return votes, dict(reasons)


def verdicts(directory: Path, name: str, wanted: set[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The verdicts of a pass on the items with these ids, whole."""
    for _, record in read_jsonl(directory / f"{name}.jsonl"):
        if record["id"] in wanted and "error" not in record:
            yield record["id"], record
