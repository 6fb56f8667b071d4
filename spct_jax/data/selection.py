"""Which records of a source are used: without duplicates, without what stands in a benchmark, divided into splits.

Every record that is dropped is told with its id, its file and row, why, and of what it is a copy.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from spct_jax.data import duplicates, fingerprints, index, splits
from spct_jax.data.contamination import Benchmarks
from spct_jax.data.index import Records

DUPLICATE, CONTAMINATED = "duplicate", "stands in a benchmark"


def divide(
    field: str, records: Records, kept: pathlib.Path, *, deduplicate: bool, fractions: Sequence[float] = (1.0,)
) -> tuple[list[Records], list[dict[str, Any]]]:
    """The records of every split, and a line on every record that was dropped.

    Args:
        field: what the records are called in those lines.
        records: of one or several sources.
        kept: file that keeps their digests; see `fingerprints.of`.
        deduplicate: whether of several that say the same only the first is used.
        fractions: of the prompts that each split gets; see `splits.split_of`.
    """
    if not deduplicate and len(fractions) == 1:
        return [records], []
    digests = index.survey(records, fingerprints.of, kept, "fingerprints", dtype=np.int64, shape=(2,))
    every = np.arange(len(records))
    first = duplicates.first_of(digests[:, 1]) if deduplicate else every
    dropped = [_duplicate(field, records, number, first[number]) for number in np.flatnonzero(first != every)]
    which = np.where(first == every, splits.split_of(digests[:, 0], fractions), -1)
    return [records[np.flatnonzero(which == split)] for split in range(len(fractions))], dropped


def without_benchmarks(
    field: str, records: Records, benchmarks: Benchmarks, kept: pathlib.Path
) -> tuple[Records, list[dict[str, Any]]]:
    """The records of whose prompts nothing stands in a benchmark; and a line on every other one."""

    def measure(record) -> int:
        found = benchmarks.find(record)
        return -1 if found is None else found.item

    items = index.survey(records, measure, kept, benchmarks.digest)
    dropped = []
    for number in np.flatnonzero(items >= 0):
        found = benchmarks.find(records[number])
        told = {"item": benchmarks.describe(found.item), "words": found.words}
        dropped.append(_told(field, records, number, CONTAMINATED) | told)
    return records[np.flatnonzero(items < 0)], dropped


def _told(field: str, records: Records, number: int, reason: str) -> dict[str, Any]:
    return {"field": field, "id": getattr(records[number], "id", ""), "where": records.where(number), "reason": reason}


def _duplicate(field: str, records: Records, number: int, first: int) -> dict[str, Any]:
    """On a copy: of which record, and whether both name the same response as the best."""
    here, there = records[number], records[first]
    told = _told(field, records, number, DUPLICATE)
    told["of"] = {"id": getattr(there, "id", ""), "where": records.where(first)}
    return told | {"same_best": _best_text(here) == _best_text(there)}


def _best_text(record: Any) -> str | None:
    best = getattr(record, "best", None)
    return None if best is None else fingerprints.normalise(record.responses[best])
