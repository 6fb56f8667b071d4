"""A procedural world small enough to judge by eye: someone looks for a place, a few places are offered.

A query names three requirements of different importance (need, want, like), in any order. Two to four responses each
describe a place; what a response does not mention, it does not have. Truth is the importance-weighted sum of the requirements
a response meets, mapped to 1..10 (need 5, want 3, like 1, plus one), with one best by a clear margin.

Demonstrations for the cold start are right in form and wrong in part. The demonstrator knows a *lure*: awards. When some
response mentions them, the demonstrator often puts them in the place of the second criterion although nobody asked for them,
and in most problems a wrong response has them. How often depends on the occasion: for a class every other time, for a gala
nearly always. Such a verdict is often right all the same, so filtering by outcome and RL wear the bias down occasion by
occasion, and a vote only helps where it has become the smaller part. He also picks wrong criteria, swaps weights and misreads
now and then. The analysis goes through the words of a response and refers to criteria by number only, so what is judged is
decided when they are written.

The test split holds out requirement combinations: the set of three attributes of a test problem occurs in no training or
development problem. Every problem is a function of (split, index, config.seed) alone.
"""

import dataclasses
import functools
import itertools
import math
import random
import zlib
from collections.abc import Iterable

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.sources import Demonstration
from spct_jax.grm.render import render
from spct_jax.grm.template import Template
from spct_jax.toy.config import ToyConfig

OCCASIONS = ("class", "office", "seminar", "weekend", "holiday", "reunion", "concert", "party", "wedding", "gala")
"""From sober to festive: the later, the oftener the demonstrator falls for the lure."""
NAMES = ("Alba", "Birch", "Coral", "Delta", "Ember", "Fjord", "Grove", "Harbour", "Iris", "Juniper", "Kite", "Linden")
ATTRIBUTES = (
    "parking", "wifi", "breakfast", "heating", "quiet", "sun", "space", "light", "plants", "tea", "music", "shade",
)  # fmt: skip
LURE = "awards"
WEIGHTS = (5, 3, 1)  # need, want, like: every subset has a sum of its own
CLAUSES = ("need {}", "want {}", "like {}")
SPLITS = ("train", "development", "test")


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
    """Problem `index` of a split; with `single` one response whose truth is 1 if it has what is needed and wanted, else 0."""
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
    """The first `count` problems of a split, every `config.single_every`-th of the training split a single-response one."""
    every = config.single_every if split == "train" else 0
    return [problem(split, i, config, single=bool(every) and i % every == every - 1) for i in range(count)]


def demonstrations(config: ToyConfig, template: Template, single: Template) -> list[Demonstration]:
    """Judging as the cold start learns it (compared, single, hinted), on training problems of their own.

    Demonstrated problems lie behind the `config.train` problems that later stages draw from.
    """
    made = []
    for i in range(config.demonstrations):
        rng = random.Random(f"{config.seed}/demonstration/{i}")
        kind = rng.choices(("compare", "single", "hinted"), config.demonstration_mix)[0]
        shown = problem("train", config.train + i, config, single=kind == "single")
        order = list(range(shown.comparison.n))
        rng.shuffle(order)
        form = single if kind == "single" else template
        best = shown.comparison.best
        turns = render(shown.comparison, order, form, hint=best if kind == "hinted" else None)
        texts = []
        while len(texts) < config.completions_per_demonstration:
            text, scores = _verdict(rng, shown, order, config, form)
            told = kind != "hinted" or all(scores[best] > s for i, s in enumerate(scores) if i != best)
            if told:  # a demonstrator who was told the answer argues until he arrives there
                texts.append(text)
        made.append(Demonstration(turns=turns, completions=tuple(texts)))
    return made


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


def _verdict(rng: random.Random, shown: Problem, order, config: ToyConfig, template: Template):
    """One noisy verdict: (text, scores in input order)."""
    criteria, weights = _criteria(rng, shown, config)
    numbers = {word: j for j, word in enumerate(criteria, start=1)}
    lines, scores = [], {}
    for place, i in enumerate(order, start=1):
        read = [rng.randrange(4) if rng.random() < config.misread else numbers.get(word, 0) for word in shown.offers[i]]
        total = sum(weights[j - 1] for j in set(read) if j)
        scores[i] = int({1, 2} <= set(read)) if template.high == 1 else min(1 + total, 10)
        readings = " ".join(f"{word} ({j or '-'})" for word, j in zip(shown.offers[i], read, strict=True))
        lines.append(f"Response {place}: {readings} = {scores[i]}")
    *principles, analysis, verdict = template.parts
    boxed = ", ".join(str(scores[i]) for i in order)
    text = f"{analysis}:\n" + "\n".join(lines) + f"\n{verdict}: \\boxed{{{boxed}}}"
    if principles:  # the number behind its word, as in the analysis: a reading repeats what followed the word before
        listed = (f"- {c} ({j}) weight {w}" for j, (c, w) in enumerate(zip(criteria, weights, strict=True), start=1))
        text = f"{principles[0]}:\n" + "\n".join(listed) + "\n" + text
    return text, [scores[i] for i in range(len(order))]


def lure_rate(occasion: str, config: ToyConfig) -> float:
    """How often the demonstrator judges by the lure: its log-odds rise evenly from the first occasion to the last."""
    low, high = (math.log(rate / (1 - rate)) for rate in config.lure)
    log_odds = low + (high - low) * OCCASIONS.index(occasion) / (len(OCCASIONS) - 1)
    return 1 / (1 + math.exp(-log_odds))


def _criteria(rng: random.Random, shown: Problem, config: ToyConfig) -> tuple[list[str], list[int]]:
    criteria = list(shown.requirements)
    for j, right in enumerate(config.criterion_right):
        if rng.random() >= right:
            criteria[j] = rng.choice([a for a in ATTRIBUTES if a not in criteria])
    if any(LURE in offer for offer in shown.offers) and rng.random() < lure_rate(shown.occasion, config):
        criteria[1] = LURE
    weights = list(WEIGHTS)
    if rng.random() < config.weights_wrong:
        rng.shuffle(weights)
    return criteria, weights


def general_instructions(config: ToyConfig) -> list[Demonstration]:
    """Plain instructions that have nothing to do with judging."""
    return [_general(random.Random(f"{config.seed}/general/{i}")) for i in range(config.general)]


def _general(rng: random.Random) -> Demonstration:
    words = rng.sample(ATTRIBUTES, 3)
    ask, answer = rng.choice(
        (
            (f"Put these words in alphabetical order: {', '.join(words)}.", ", ".join(sorted(words))),
            (f"Say these words backwards: {', '.join(words)}.", ", ".join(reversed(words))),
            (f"Which word comes second: {', '.join(words)}?", words[1]),
            (
                f"Describe a place that has {words[0]} and {words[1]}.",
                f"{rng.choice(NAMES)} has {words[0]}, {words[1]}.",
            ),
        )
    )
    return Demonstration(turns=(Turn("user", ask),), completions=(answer,))
