"""Which records of a source are used: without copies, without what stands in a benchmark, divided into splits.

Every record that is dropped can be told with its id, its file and row, why, and of what it is a copy.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from spct_jax.data import duplicates, fingerprints, index, splits
from spct_jax.data.contamination import Benchmarks
from spct_jax.data.index import Records
from spct_jax.storage import digests
from spct_jax.storage.paths import Path

DUPLICATE, CONTAMINATED = "duplicate", "stands in a benchmark"


@dataclasses.dataclass(frozen=True)
class Dropped:
    """Records that are not used; iterating reads them and gives a line on each, which can be written as JSON."""

    field: str
    """What they are records of."""
    reason: str
    records: Records
    """Before they were dropped."""
    numbers: np.ndarray
    """Int64[M], ascending: which were dropped."""
    tell: Callable[[int], dict[str, Any]]
    """More on one of them."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in map(int, self.numbers):
            id = getattr(self.records[number], "id", "")
            where = self.records.where(number)
            yield {"field": self.field, "id": id, "where": where, "reason": self.reason, **self.tell(number)}

    @property
    def stamp(self) -> str:
        """Changes when what is told does."""
        which = digests.of_bytes(self.records.numbers[self.numbers].tobytes())
        return f"{self.field} {self.reason} {self.records.stamp} {which}"


def divide(
    field: str, records: Records, kept: Path, *, deduplicate: bool, fractions: Sequence[float] = (1.0,)
) -> tuple[list[Records], Dropped]:
    """The records of every split, and those that were dropped as copies of earlier ones.

    Args:
        field: what the records are called where the dropped ones are told.
        records: of one or several sources.
        kept: file that keeps their digests; see `fingerprints.of`.
        deduplicate: whether of several that say the same only the first is used.
        fractions: of the prompts that each split gets; see `splits.split_of`.
    """
    every = np.arange(len(records))
    if not deduplicate and len(fractions) == 1:
        return [records], Dropped(field, DUPLICATE, records, every[:0], lambda _: {})
    found = index.survey(records, fingerprints.of, kept, "fingerprints", dtype=np.int64, shape=(2,))
    first = duplicates.first_of(found[:, 1]) if deduplicate else every
    which = np.where(first == every, splits.split_of(found[:, 0], fractions), -1)

    def tell(number: int) -> dict[str, Any]:
        here, there = records[number], records[int(first[number])]
        of = {"id": getattr(there, "id", ""), "where": records.where(int(first[number]))}
        return {"of": of, "same_best": _best_text(here) == _best_text(there)}

    parts = [records[np.flatnonzero(which == split)] for split in range(len(fractions))]
    return parts, Dropped(field, DUPLICATE, records, np.flatnonzero(which < 0), tell)


def without_benchmarks(field: str, records: Records, benchmarks: Benchmarks, kept: Path) -> tuple[Records, Dropped]:
    """The records of whose prompts nothing stands in a benchmark, and the others; `kept` keeps which they are."""

    def measure(record: Any) -> int:
        found = benchmarks.find(record)
        return -1 if found is None else found.item

    def tell(number: int) -> dict[str, Any]:
        found = benchmarks.find(records[number])
        return {"item": benchmarks.describe(found.item), "words": found.words}

    items = index.survey(records, measure, kept, benchmarks.digest)
    dropped = Dropped(field, CONTAMINATED, records, np.flatnonzero(items >= 0), tell)
    return records[np.flatnonzero(items < 0)], dropped


def _best_text(record: Any) -> str | None:
    best = getattr(record, "best", None)
    return None if best is None else fingerprints.normalise(record.responses[best])
