"""Fields of the evaluation."""

import dataclasses

from spct_jax.field_bounds import MOST, bounded, one_of


@dataclasses.dataclass
class EvaluationConfig:
    """Greedy accuracy after each stage, votes and guided votes at the end."""

    split: str = one_of("test", ("train", "development", "test"))
    problems: int = bounded(1500, 0, MOST)
    """How many of the split are evaluated, a sample by the seed (0: all)."""
    k: tuple[int, ...] = bounded((1, 8, 32), 1, 65536, length=(1, 64), ascending=True)
    temperature: float = bounded(1.0, 0, 100)
    """Sampling temperature of every vote; chosen on the development split, see docs/choices.md. At 0 votes of a comparison
    differ by the order of its responses only."""
    compare_temperatures: tuple[float, ...] = bounded((), 0, 100, length=(0, 64))
    """Other temperatures to report as well (the paper's is 0.5)."""
    order: str = one_of("balanced", ("balanced", "random"))
    """`balanced` or `random` (the paper's)."""
    k_meta_fraction: float = bounded(0.5, 0, 1, ends="(]")
    """k_meta = this share of k (paper default: one half)."""
    buckets: tuple[tuple[int, int], ...] = bounded((), 1, 1 << 24, length=(0, 64), ascending=True)
    """Smaller shapes for votes, (longest prompt, longest completion) each, in ascending order: a comparison takes the first
    that its prompt fits in, else that of `data.max_prompt` and `data.max_completion`."""
    slots: int = bounded(512, 0, 1 << 24)
    """Branches decoded at once; 0: as many as fit the memory of the devices that the stage is begun on. On two CPU cores 1,024
    of the tiny model are no faster and take half a gigabyte more."""
    texts: int = bounded(40, 0, MOST)
    """For how many problems the full text of every verdict is kept."""
