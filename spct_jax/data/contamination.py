"""Prompts of benchmarks that stand in training data, found by 13-grams of words.

A record is contaminated if 13 words in a row of a user's turn stand in one of a benchmark, too; or if its last turn is that of
the benchmark, where that has fewer words. System turns and answers are not looked at: both often hold phrases that belong to
nobody. Case, white space, punctuation and the form of characters make no difference.
"""

import bisect
import itertools
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spct_jax.data import fingerprints
from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.index import Records

WORDS = 13
_FACTORS = np.random.default_rng(13).integers(1, 2**63, WORDS, np.uint64) * np.uint64(2) + np.uint64(1)
_SHORT = np.random.default_rng(14).integers(1, 2**63, WORDS, np.uint64)
"""Added to the digest of a text of so many words, since it matches only a text of as many."""


class Match(NamedTuple):
    """What a record shares with a benchmark."""

    item: int
    """The benchmarks' items are counted through in their order."""
    words: str


class Benchmarks:
    """The 13-grams of all prompts of some benchmarks, as sorted arrays: 12 bytes each.

    Attributes:
        digest: changes when a prompt does.
    """

    def __init__(self, names: Sequence[str], records: Sequence[Records]):
        """Reads the prompts.

        Args:
            names: what the benchmarks are called.
            records: the items of each.
        """
        self._names, self._records = names, records
        self._ends = list(itertools.accumulate(map(len, records)))
        items = itertools.chain.from_iterable(records)
        grams = [np.concatenate(_grams(fingerprints.turns_of(item))) for item in items]
        owners = np.repeat(np.arange(len(grams), dtype=np.int32), [len(of_item) for of_item in grams])
        self._grams, first = np.unique(np.concatenate([np.zeros(0, np.uint64), *grams]), return_index=True)
        self._owners = owners[first]
        self.digest = f"{zlib.crc32(self._grams.tobytes()):08x} {zlib.crc32(self._owners.tobytes()):08x}"

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def find(self, record: Comparison | Demonstration) -> Match | None:
        """What of a record's prompt stands in a benchmark, its first place in the prompt; None where nothing does."""
        turns = fingerprints.turns_of(record)
        for turn, grams in zip(_asked(turns), _grams(turns), strict=True):
            at = np.minimum(np.searchsorted(self._grams, grams), max(len(self._grams) - 1, 0))
            for start in np.flatnonzero(self._grams[at] == grams) if len(self._grams) else ():
                item = int(self._owners[at[start]])
                said = " ".join(fingerprints.words(turn.content)[start : start + WORDS])
                if any(said in " ".join(fingerprints.words(other.content)) for other in _asked(self._turns(item))):
                    return Match(item, said)  # and no accident of two digests
        return None

    def describe(self, item: int) -> dict[str, str]:
        """Which item of which benchmark it is."""
        benchmark, number = self._place(item)
        records = self._records[benchmark]
        return {"benchmark": self._names[benchmark], "id": getattr(records[number], "id", ""), "where": records.where(number)}

    def _place(self, item: int) -> tuple[int, int]:
        benchmark = bisect.bisect_right(self._ends, item)
        return benchmark, item - (self._ends[benchmark - 1] if benchmark else 0)

    def _turns(self, item: int) -> tuple[Turn, ...]:
        benchmark, number = self._place(item)
        return fingerprints.turns_of(self._records[benchmark][number])


def _asked(turns: Sequence[Turn]) -> list[Turn]:
    return [turn for turn in turns if turn.role == "user"]


def _grams(turns: Sequence[Turn]) -> list[np.ndarray]:
    """UInt64 digests of the 13-grams of every user's turn; of a last turn that has fewer words, that of all its words."""
    found = []
    for number, turn in enumerate(asked := _asked(turns), 1):
        said = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in fingerprints.words(turn.content)]
        words, count = np.array(said, np.uint64), len(said)
        if count >= WORDS:
            windows = np.lib.stride_tricks.sliding_window_view(words, WORDS)
            found.append((windows * _FACTORS).sum(axis=1))
        else:
            whole = (words * _FACTORS[:count]).sum(keepdims=True) + _SHORT[count]
            found.append(whole if count and number == len(asked) else whole[:0])
    return found
