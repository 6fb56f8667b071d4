"""Which records a step draws: endless shuffled passes over them or, of several sources, over each in its share of the draws.

What stands at a position of such a sequence follows from (seed, stream, position), so a run goes on at any step, and any number
of processes agree.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

BLOCK = 10_000
"""Draws after which every source has had its share, to one in twice as many."""


@dataclasses.dataclass(frozen=True, eq=False)
class Shares:
    """The sources that records come from, and how often each source is drawn from."""

    sources: np.ndarray
    """UInt8[N]: the source of each record."""
    weights: tuple[float, ...]
    """Of every source; only their ratios count. Sources that no record is left of give their share to the others."""

    def __getitem__(self, numbers: slice | np.ndarray) -> "Shares":
        """Of the records with these numbers."""
        return Shares(self.sources[numbers], self.weights)

    @functools.cached_property
    def members(self) -> list[np.ndarray]:
        """The numbers of each source's records."""
        return [np.flatnonzero(self.sources == source) for source in range(len(self.weights))]

    @functools.cached_property
    def quotas(self) -> tuple[int, ...]:
        """How many draws of every block are from each source, at least one where it has records."""
        present = [weight if len(members) else 0.0 for weight, members in zip(self.weights, self.members, strict=True)]
        exact = [weight / sum(present) * BLOCK for weight in present]
        return tuple(max(round(quota), 1) if quota else 0 for quota in exact)

    def at(self, seed: int, stream: str, position: int) -> int:
        """The number of the record drawn at a position."""
        block, offset = divmod(position, sum(self.quotas))
        sources, before = _block(seed, stream, self.quotas, block)
        source = int(sources[offset])
        nth = block * self.quotas[source] + int(before[offset])
        members = self.members[source]
        return int(members[_in_passes(seed, f"{stream}/{source}", len(members), nth)])


def order(seed: int, stream: str, count: int, step: int, batch_size: int, shares: Shares | None = None) -> list[int]:
    """Indices of step `step` in an endless sequence of shuffled passes over `count` records; pure in its arguments.

    With `shares`, of these records, there are passes over each source, and its draws lie at random among those of the others.
    """
    first = step * batch_size
    positions = range(first, first + batch_size)
    if shares is None:
        return [_in_passes(seed, stream, count, position) for position in positions]
    return [shares.at(seed, stream, position) for position in positions]


def sample(seed: int, stream: str, count: int, size: int, shares: Shares | None = None) -> np.ndarray:
    """Int64[S], ascending: `size` of `count` records drawn without replacement, since files are often sorted by source.

    All of them where `size` is 0 or not less than `count`; pure in its arguments. With `shares`, every source gives its share
    of `size` or, where that is more than it has, all its records.
    """
    if not 0 < size < count:
        return np.arange(count)
    return np.unique(np.array(order(seed, stream, count, 0, size, shares)))


def earlier(sources: np.ndarray) -> np.ndarray:
    """Int64[N]: how many elements of the same source come before each."""
    found = np.zeros(len(sources), np.int64)
    for source in np.unique(sources):
        of_it = np.flatnonzero(sources == source)
        found[of_it] = np.arange(len(of_it))
    return found


def _in_passes(seed: int, stream: str, count: int, position: int) -> int:
    return int(_permutation(seed, stream, count, position // count)[position % count])


@functools.lru_cache(maxsize=32)
def _permutation(seed: int, stream: str, count: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, count, *stream.encode()]).permutation(count).astype(np.int32)


@functools.lru_cache(maxsize=32)
def _block(seed: int, stream: str, quotas: Sequence[int], block: int) -> tuple[np.ndarray, np.ndarray]:
    """(source of every draw of a block, how many draws of the same source come before it in the block)."""
    sources = np.repeat(np.arange(len(quotas)), quotas)
    sources = sources[_permutation(seed, f"{stream}/sources", len(sources), block)]
    return sources, earlier(sources)
