"""What a step of supervised fine-tuning learns from: a number of completions, a share of them for general instructions.

Two completions of one prompt make a row of two branches, so that the prompt is computed once for both. Every other completion
is a row of one branch; where these are few, they are put into rows of two, whose second branch is then empty: that costs less
than a forward and a backward pass of their own. How many rows of either kind a step has follows from the data and is the same
for all steps, so shapes stay the same. The only other empty branches are in rows added so that devices share them evenly.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, UInt8

from spct_jax.data import draws
from spct_jax.data.batches import Example
from spct_jax.data.draws import Shares

LEAST_USED = 0.9
"""Share of branches that must hold a completion where single ones are put into rows of two."""


@dataclasses.dataclass(frozen=True)
class Pool:
    """Examples of one kind, from whose completions those of every step are chosen."""

    examples: Sequence[Example]
    sizes: Int[np.ndarray, " N"]
    """How many completions each example has."""
    shares: Shares | None = None
    """The sources of the examples, if they come from several, whose weights then decide how often each is drawn from."""

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.examples)

    @property
    def sources(self) -> UInt8[np.ndarray, " N"]:
        """The source of each example, 0 where there is one source."""
        return np.zeros(self.count, np.uint8) if self.shares is None else self.shares.sources

    @property
    def weights(self) -> Float[np.ndarray, " S"]:
        """How often each source is drawn from; only their ratios count."""
        return np.array([1] if self.shares is None else self.shares.weights, float)

    def shares_of(self, pieces: Int[np.ndarray, "M 2"], factors: Float[ArrayLike, " S"] = 1.0) -> Shares | None:
        """The sources of pieces of the examples, their weights times `factors`; None where there is one source."""
        if self.shares is None:
            return None
        return Shares(self.sources[pieces[:, 0]], tuple((self.weights * factors).tolist()))


@dataclasses.dataclass(frozen=True)
class Rows:
    """How many rows of each kind a step has; `general + single + 2 * pairs` is its number of completions."""

    general: int
    """Rows of one completion for a general instruction."""
    single: int
    """Rows of one completion that judges."""
    pairs: int
    """Rows of two completions that judge, for one prompt."""

    @property
    def completions(self) -> int:
        """Completions of a step."""
        return self.general + self.single + 2 * self.pairs

    def groups(self) -> dict[int, int]:
        """Branches per row -> number of such rows, where there are any."""
        alone = self.general + self.single
        if self.completions >= LEAST_USED * 2 * (alone + self.pairs):
            return {2: alone + self.pairs}
        return {size: rows for size, rows in ((1, alone), (2, self.pairs)) if rows}


def rows_of(batch_size: int, general_fraction: float, in_pairs: float) -> Rows:
    """The rows of a step of `batch_size` completions, if a share `in_pairs` of those that judge are in pairs."""
    general = round(batch_size * general_fraction)
    pairs = int((batch_size - general) * in_pairs / 2 + 1e-9)
    return Rows(general, batch_size - general - 2 * pairs, pairs)


def _in_pairs(
    batch_size: int, general_fraction: float, judging: Pool
) -> tuple[Rows, Float[np.ndarray, " S"], Int[np.ndarray, " S"]]:
    """(rows of a step, by source the share of its draws that is in pairs, how many of its pairs there then are).

    A step has as many draws in pairs as can be. A source keeps only as many pairs as its share of them needs, rounded down; the
    completions of its other pairs are drawn alone. So all of its completions come up equally often, those of one pair apart.
    """
    sources, weights = judging.sources, judging.weights
    completions, pairs = (np.bincount(sources, x, len(weights)) for x in (judging.sizes, judging.sizes // 2))
    drawn = weights * (completions > 0)
    drawn /= max(drawn.sum(), np.finfo(float).tiny)
    can = 2 * pairs / np.maximum(completions, 1)
    while True:
        rows = rows_of(batch_size, general_fraction, float(drawn @ can))
        made = 2 * rows.pairs / max(rows.single + 2 * rows.pairs, 1)
        shares = can * made / (drawn @ can) if made else np.zeros(len(can))
        kept = np.minimum(completions * shares / 2 + 1e-9, pairs).astype(int)
        if not (few := (can > 0) & (kept == 0)).any():
            return rows, shares, kept
        can = np.where(few, 0, can)  # less than one pair: such a source has none


def split(rows: int, most: int, shards: int) -> tuple[int, int]:
    """(rows with padding, micro-batches): equal micro-batches of at most `most` rows, rounded up to a multiple of `shards`.

    Args:
      rows: how many are wanted.
      most: largest number of rows of a micro-batch before it is rounded up.
      shards: number of shards that a batch is split into; it divides the rows of a micro-batch.
    """
    micro_batches = math.ceil(rows / most)
    each = math.ceil(rows / micro_batches / shards) * shards
    return micro_batches * each, micro_batches


def shapes(rows: Rows, batch_size: int, accumulate: int, shards: int) -> dict[int, tuple[int, int]]:
    """Branches per row -> (rows, micro-batches) from `split`, for micro-batches of `batch_size / accumulate` completions."""
    each = batch_size // accumulate

    def most(size: int, rows: int) -> int:
        return rows if accumulate == 1 else max(each // size, shards)

    return {size: split(n, most(size, n), shards) for size, n in rows.groups().items()}


class Mixture:
    """The batches of a stage, each a function of (seed, step), in which every source has its share.

    All completions that judge come up equally often, or if they are of several sources, all of the same source.

    Attributes:
      rows: the rows of every step.
    """

    def __init__(
        self,
        seed: int,
        stream: str,
        batch_size: int,
        general_fraction: float,
        judging: Pool,
        general: Pool,
    ):
        """Mixes two kinds of examples; if there are none of one kind, all are of the other.

        Args:
          seed: seed of the run.
          stream: name of the random order of the data.
          batch_size: completions per step.
          general_fraction: share of them from `general`.
          judging: demonstrated or retained verdicts.
          general: demonstrations of anything else.
        """
        self._seed, self._stream = seed, stream
        self._judging, self._general = judging.examples, general.examples
        fraction = general_fraction if judging.count and general.count else float(judging.count == 0)
        self.rows, shares, kept = _in_pairs(batch_size, fraction, judging)
        pairs = _pieces(judging.sizes // 2, 2)
        pairs = pairs[draws.order(seed, f"{stream}-kept", len(pairs), 0, len(pairs))]
        own = judging.sources[pairs[:, 0]]
        is_kept = draws.earlier(own) < kept[own]
        odd = np.flatnonzero(judging.sizes % 2)
        last = np.stack([odd, judging.sizes[odd] - 1], 1)
        self._pairs, left = pairs[is_kept], pairs[~is_kept]
        self._singles = np.concatenate([last, left, left + [0, 1]])
        self._alone = _pieces(general.sizes, 1)
        self._shares = {"general": general.shares_of(self._alone)}
        self._shares |= {
            "single": judging.shares_of(self._singles, 1 - shares),
            "pairs": judging.shares_of(self._pairs, shares),
        }

    def batch(self, step: int) -> dict[int, list[Example]]:
        """Branches per row -> the rows of a step, each with at most that many completions of one example, and at least one."""
        drawn = {
            "general": (self._general, self._alone, self.rows.general, 1),
            "single": (self._judging, self._singles, self.rows.single, 1),
            "pairs": (self._judging, self._pairs, self.rows.pairs, 2),
        }
        found: dict[int, list[Example]] = {size: [] for size in self.rows.groups()}
        for name, (examples, pieces, count, size) in drawn.items():
            for i in draws.order(self._seed, f"{self._stream}-{name}", len(pieces), step, count, self._shares[name]):
                number, first = map(int, pieces[i])
                found[size if size in found else 2].append(examples[number].part(range(first, first + size)))
        return found


def _pieces(counts: np.ndarray, size: int) -> np.ndarray:
    """Int[N 2]: (example, first completion) of `counts[i]` consecutive runs of `size` completions of each example i."""
    number = np.repeat(np.arange(len(counts)), counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([number, (np.arange(len(number)) - before) * size], 1)
