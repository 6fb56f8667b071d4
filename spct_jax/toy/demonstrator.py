"""Demonstrations for the cold start on the toy world: right in form, wrong in part.

When some response mentions the lure, the demonstrator often takes it for the second criterion, although nobody asked
for it, and in most such problems a wrong response has it. How often depends on the occasion: for a class every third time, for
a gala nearly always. Many such verdicts are right all the same, so filtering by outcome and RL wear the bias down occasion by
occasion, and votes help only where the biased verdicts have become the minority. The demonstrator also picks wrong criteria,
shuffles weights and misreads now and then. The analysis goes through the words of a response and refers to criteria by number
only, so the words that a response is judged by are fixed when the criteria are written.
"""

import math
import random

from spct_jax.data.comparison import Turn
from spct_jax.data.demonstration import Demonstration
from spct_jax.grm.render import render
from spct_jax.grm.template import Template
from spct_jax.toy import world
from spct_jax.toy.config import ToyConfig


def demonstrations(config: ToyConfig, template: Template, single: Template, *, chooses: bool = False) -> list[Demonstration]:
    """Demonstrations of judging for the cold start (compared, single, hinted), on training problems of their own.

    With `chooses`, those of several responses end in the number of the best one. Their problems come after the first
    `config.train` problems, which later stages draw from.
    """
    made = []
    for i in range(config.demonstrations):
        rng = random.Random(f"{config.seed}/demonstration/{i}")
        kind = rng.choices(("compare", "single", "hinted"), config.demonstration_mix)[0]
        shown = world.problem("train", config.train + i, config, single=kind == "single")
        order = list(range(shown.comparison.n))
        rng.shuffle(order)
        form = single if kind == "single" else template
        best = shown.comparison.best
        turns = render(shown.comparison, order, form, hint=best if kind == "hinted" else None)
        texts = []
        while len(texts) < config.completions_per_demonstration:
            text, scores = _verdict(rng, shown, order, config, form, chooses=chooses and kind != "single")
            told = kind != "hinted" or all(scores[best] > s for i, s in enumerate(scores) if i != best)
            if told:  # a demonstrator who was told the answer argues until the verdict agrees with it
                texts.append(text)
        made.append(Demonstration(turns=turns, completions=tuple(texts)))
    return made


def general_instructions(config: ToyConfig) -> list[Demonstration]:
    """Plain instructions that have nothing to do with judging."""
    return [_general(random.Random(f"{config.seed}/general/{i}")) for i in range(config.general)]


def lure_rate(occasion: str, config: ToyConfig) -> float:
    """How often the demonstrator judges by the lure: its log-odds rise evenly from the first occasion to the last."""
    low, high = (math.log(rate / (1 - rate)) for rate in config.lure)
    log_odds = low + (high - low) * world.OCCASIONS.index(occasion) / (len(world.OCCASIONS) - 1)
    return 1 / (1 + math.exp(-log_odds))


def _verdict(rng: random.Random, shown: world.Problem, order, config: ToyConfig, template: Template, *, chooses: bool):
    """One noisy verdict: (text, scores in input order); one that chooses gives a score of 1 to the response it names."""
    criteria, weights = _criteria(rng, shown, config)
    numbers = {word: j for j, word in enumerate(criteria, start=1)}
    lines, scores = [], {}
    for position, i in enumerate(order, start=1):
        read = [rng.randrange(4) if rng.random() < config.misread else numbers.get(word, 0) for word in shown.offers[i]]
        total = sum(weights[j - 1] for j in set(read) if j)
        scores[i] = int({1, 2} <= set(read)) if len(order) == 1 else min(1 + total, 10)
        readings = " ".join(f"{word} ({j or '-'})" for word, j in zip(shown.offers[i], read, strict=True))
        lines.append(f"Response {position}: {readings} = {scores[i]}")
    *principles, analysis, verdict = template.parts
    boxed = ", ".join(str(scores[i]) for i in order)
    if chooses:  # among equals at random
        named = rng.choice([i for i in order if scores[i] == max(scores.values())])
        boxed, scores = str(order.index(named) + 1), {i: int(i == named) for i in order}
    text = f"{analysis}:\n" + "\n".join(lines) + f"\n{verdict}: \\boxed{{{boxed}}}"
    if principles:  # the number follows its word, as in the analysis, which so repeats what followed the word earlier
        listed = (f"- {c} ({j}) weight {w}" for j, (c, w) in enumerate(zip(criteria, weights, strict=True), start=1))
        text = f"{principles[0]}:\n" + "\n".join(listed) + "\n" + text
    return text, [scores[i] for i in range(len(order))]


def _criteria(rng: random.Random, shown: world.Problem, config: ToyConfig) -> tuple[list[str], list[int]]:
    criteria = list(shown.requirements)
    for j, right in enumerate(config.criterion_right):
        if rng.random() >= right:
            criteria[j] = rng.choice([a for a in world.ATTRIBUTES if a not in criteria])
    if any(world.LURE in offer for offer in shown.offers) and rng.random() < lure_rate(shown.occasion, config):
        criteria[1] = world.LURE
    weights = list(world.WEIGHTS)
    if rng.random() < config.weights_wrong:
        rng.shuffle(weights)
    return criteria, weights


def _general(rng: random.Random) -> Demonstration:
    words = rng.sample(world.ATTRIBUTES, 3)
    ask, answer = rng.choice(
        (
            (f"Put these words in alphabetical order: {', '.join(words)}.", ", ".join(sorted(words))),
            (f"Say these words backwards: {', '.join(words)}.", ", ".join(reversed(words))),
            (f"Which word comes second: {', '.join(words)}?", words[1]),
            (
                f"Describe a place that has {words[0]} and {words[1]}.",
                f"{rng.choice(world.NAMES)} has {words[0]}, {words[1]}.",
            ),
        )
    )
    return Demonstration(turns=(Turn("user", ask),), completions=(answer,))
