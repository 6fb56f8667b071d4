"""Fields of the toy world."""

import dataclasses
from collections.abc import Iterator

from spct_jax.field_bounds import MOST, SEEDS, bounded


@dataclasses.dataclass
class ToyConfig:
    """The procedural world of `toy/world.py`; used when `DataConfig.train` names no file."""

    seed: int = bounded(0, *SEEDS)
    """Seed of the problems themselves; the run's seed does not change the data, just as it would not change real data."""
    train: int = bounded(6000, 1, MOST)
    development: int = bounded(500, 0, MOST)
    test: int = bounded(2000, 0, MOST)
    response_counts: tuple[float, float, float] = bounded((0.45, 0.35, 0.2), 0, 1e6)
    """Relative frequency of 2, 3 and 4 responses."""
    margin: int = bounded(2, 1, 8)
    """Smallest difference between the best and the second-best true score."""
    single_every: int = bounded(12, 0, MOST)
    """One in this many training problems has a single response (0: none)."""
    lure_on_wrong: float = bounded(0.45, 0, 1)
    """Share of problems in which a wrong response mentions the lure."""
    lure_on_any: float = bounded(0.15, 0, 1)
    """Further share of problems, in which a response chosen at random does."""
    demonstrations: int = bounded(6000, 1, MOST)
    completions_per_demonstration: int = bounded(2, 1, 1024)
    demonstration_mix: tuple[float, float, float] = bounded((0.8, 0.08, 0.12), 0, 1e6)
    """Relative frequency of compared, single-response and hinted demonstrations."""
    general: int = bounded(500, 0, MOST)
    """General-instruction demonstrations."""
    criterion_right: tuple[float, float, float] = bounded((0.97, 0.94, 0.91), 0, 1)
    """How often the demonstrator's criterion is the requirement it stands for."""
    weights_wrong: float = bounded(0.04, 0, 1)
    """How often the demonstrator shuffles the weights."""
    misread: float = bounded(0.015, 0, 1, ends="[)")
    """How often the demonstrator misreads whether a response meets a criterion."""
    lure: tuple[float, float] = bounded((0.3, 0.995), 0, 1, ends="()")
    """How often the demonstrator judges by the lure when some response mentions it: on the most sober and on the most festive
    occasion."""

    def conflicts(self, prefix: str) -> Iterator[str]:
        """What is wrong between the fields, a line each; see `field_bounds`."""
        for name in ("response_counts", "demonstration_mix"):
            if not any(getattr(self, name)):
                yield f"{prefix}{name}: one of the frequencies must be above 0"
