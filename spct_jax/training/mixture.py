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
from jaxtyping import Int

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
    """The batches of a stage, each a function of (seed, step); of one source, all completions that judge come up equally often.

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
        sizes, total = judging.sizes, int(judging.sizes.sum())
        pairs = _pieces(sizes // 2, 2)
        rows = rows_of(batch_size, fraction, 2 * len(pairs) / max(total, 1))
        # Only as many pairs are kept as a step's share of pairs needs; the completions of the other pairs become single rows.
        kept = total * rows.pairs // max(rows.single + 2 * rows.pairs, 1)
        self.rows = rows if kept else Rows(rows.general, rows.single + 2 * rows.pairs, 0)
        pairs = pairs[draws.order(seed, f"{stream}-kept", len(pairs), 0, len(pairs))]
        odd = np.flatnonzero(sizes % 2)
        last = np.stack([odd, sizes[odd] - 1], 1)
        self._pairs = pairs[:kept]
        self._singles = np.concatenate([last, pairs[kept:], pairs[kept:] + [0, 1]])
        self._alone = _pieces(general.sizes, 1)

        def shares(pool, pieces):
            return None if pool.shares is None else pool.shares[pieces[:, 0]]

        self._shares = {"general": shares(general, self._alone)}
        self._shares |= {"single": shares(judging, self._singles), "pairs": shares(judging, self._pairs)}

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
