"""A procedural world small enough to judge by eye: someone looks for a place, and several places are offered.

A query names three requirements of different importance (need, want, like), in any order. Each of two to four responses
describes a place; a place has nothing that its response does not mention. The true score of a response is the sum of the
weights of the requirements it meets, plus one: need 5, want 3, like 1, so that scores lie in 1..10. One response is the best
by a clear margin.

Responses may also mention a *lure*, awards, that nobody asked for; most of those that do are wrong. The demonstrator falls for
it (see `demonstrator`).

The test split holds out combinations of requirements: the three attributes of a test problem occur together in no training or
development problem. Every problem is a function of (split, index, config.seed) alone.
"""

import dataclasses
import functools
import itertools
import random
import zlib
from collections.abc import Iterable

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.toy.config import ToyConfig

OCCASIONS = ("class", "office", "seminar", "weekend", "holiday", "reunion", "concert", "party", "wedding", "gala")
"""From sober to festive: the more festive, the more often the demonstrator falls for the lure."""
NAMES = ("Alba", "Birch", "Coral", "Delta", "Ember", "Fjord", "Grove", "Harbour", "Iris", "Juniper", "Kite", "Linden")
ATTRIBUTES = (
    "parking", "wifi", "breakfast", "heating", "quiet", "sun", "space", "light", "plants", "tea", "music", "shade",
)  # fmt: skip
LURE = "awards"
WEIGHTS = (5, 3, 1)  # need, want, like: every subset has a sum of its own
CLAUSES = ("need {}", "want {}", "like {}")


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem of the toy world: the comparison people see and the facts it was made from."""

    comparison: Comparison
    occasion: str
    requirements: tuple[str, str, str]
    """Attributes asked for, most important first."""
    offers: tuple[tuple[str, ...], ...]
    """Attributes of each response, in the order it names them."""


def held_out(requirements: Iterable[str]) -> bool:
    """Whether a combination of attributes, in whatever order, is kept for the test split: a quarter of them are."""
    return zlib.crc32(" ".join(sorted(requirements)).encode()) % 4 == 0


@functools.cache
def combinations(split: str) -> list[tuple[str, ...]]:
    """All attribute combinations of a split; training and development share theirs."""
    return [c for c in itertools.combinations(ATTRIBUTES, 3) if held_out(c) == (split == "test")]


def problem(split: str, index: int, config: ToyConfig, *, single: bool = False) -> Problem:
    """Problem `index` of a split; with `single`, one response, whose true score is 1 if it meets need and want, else 0."""
    rng = random.Random(f"{config.seed}/{split}/{single}/{index}")
    requirements = list(rng.choice(combinations(split)))
    rng.shuffle(requirements)
    n = 1 if single else rng.choices((2, 3, 4), config.response_counts)[0]
    met = _single_met(rng) if single else _met_with_margin(rng, n, config.margin)
    scores = [sum(w for w, m in zip(WEIGHTS, row, strict=True) if m) for row in met]
    lured = _lured_response(rng, scores, config)
    offers = tuple(_offer(rng, requirements, row, i == lured) for i, row in enumerate(met))
    names, occasion = rng.sample(NAMES, n), rng.choice(OCCASIONS)
    clauses = [c.format(r) for c, r in zip(CLAUSES, requirements, strict=True)]
    rng.shuffle(clauses)
    comparison = Comparison(
        id=f"{'single' if single else 'toy'}-{split}-{index}",
        conversation=(Turn("user", f"For my {occasion} I {', '.join(clauses)}."),),
        responses=tuple(f"{name} has {', '.join(offer)}." for name, offer in zip(names, offers, strict=True)),
        scores=(float(scores[0] >= WEIGHTS[0] + WEIGHTS[1]),) if single else tuple(1.0 + s for s in scores),
    )
    return Problem(comparison, occasion, tuple(requirements), offers)


def problems(split: str, count: int, config: ToyConfig) -> list[Problem]:
    """The first `count` problems of a split; in the training split every `config.single_every`-th has a single response."""
    every = config.single_every if split == "train" else 0
    return [problem(split, i, config, single=bool(every) and i % every == every - 1) for i in range(count)]


def _met_with_margin(rng: random.Random, n: int, margin: int) -> list[tuple[bool, ...]]:
    while True:
        met = [tuple(rng.random() < 0.5 for _ in WEIGHTS) for _ in range(n)]
        scores = sorted(sum(w for w, m in zip(WEIGHTS, row, strict=True) if m) for row in met)
        if scores[-1] - scores[-2] >= margin:
            return met


def _single_met(rng: random.Random) -> list[tuple[bool, ...]]:
    if rng.random() < 0.5:
        return [(True, True, rng.random() < 0.5)]
    return [rng.choice(((True, False, True), (False, True, True), (True, False, False), (False, True, False)))]


def _lured_response(rng: random.Random, scores: list[int], config: ToyConfig) -> int | None:
    """Which response mentions the lure: mostly a wrong one."""
    draw = rng.random()
    if draw < config.lure_on_wrong and len(scores) > 1:
        return rng.choice([i for i, s in enumerate(scores) if s < max(scores)])
    return rng.randrange(len(scores)) if draw < config.lure_on_wrong + config.lure_on_any else None


def _offer(rng: random.Random, requirements, met, lured: bool) -> tuple[str, ...]:
    has = [r for r, m in zip(requirements, met, strict=True) if m] + [LURE] * lured
    others = [a for a in ATTRIBUTES if a not in requirements]
    words = has + rng.sample(others, 1 if has else 2)
    rng.shuffle(words)
    return tuple(words)
