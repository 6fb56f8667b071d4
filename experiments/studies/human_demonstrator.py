"""A demonstrator that judges by what can be computed of a text: the cold start of a judge of real responses.

A verdict names two criteria with points, says of every response whether it meets them, with a quotation wherever there is one
to give and the points that it earns, and adds these up before it repeats the sums as scores: what a small model must only copy
it learns sooner than what it must work out unseen. Every statement is true of the text, since the feature that it is made from
says so; whether it is what matters is another question. The demonstrator favours a response and then finds a criterion that
speaks for it, and his favourite is wrong in ways that later stages can mend: he knows in some cases what people preferred, else
he often takes the longest response, else any. No other model has a part in it.
"""

import collections
import dataclasses
import random
from collections.abc import Iterator, Sequence

from human_criteria import Criterion, kind_of, lengths, read_all

from spct_jax.data.comparison import Comparison
from spct_jax.data.demonstration import Demonstration
from spct_jax.grm.render import render
from spct_jax.grm.template import Template

KNOWS = 0.6
"""How often he favours the response that people preferred, or that is right, because he knows."""
LIKES_LENGTH = 0.25
"""How often he favours the longest one instead. In what is left of 1, he favours any."""
HINTED = 0.15
"""Share of the demonstrations in which a hint tells him which is best."""
COMPLETIONS = 4
"""Verdicts of a demonstration."""
POINTS = ((5, 4), (6, 3), (7, 2))
"""Of the first and the second criterion; a score is one more than the points of those that a response meets."""
PREFERRED = 4
"""How much likelier the criteria of a comparison's own kind, such as safety, are drawn than the others; and, as the second
criterion, those by which responses differ."""
TRIES = 20


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the demonstrator says of a comparison.

    Attributes:
        criteria: as worded, with their points.
        said: of every response, in input order, what is said by each criterion.
        scores: of every response, in input order.
        earned: of every response, in input order, the points for each criterion; nothing where a score is no sum of points.
    """

    criteria: tuple[tuple[str, int], ...]
    said: tuple[tuple[str, ...], ...]
    scores: tuple[int, ...]
    earned: tuple[tuple[int, ...], ...] = ()

    def text(self, order: Sequence[int], template: Template, answer: str) -> str:
        """The verdict in the template's parts, on responses in the order shown; `answer` is what is in the box."""
        *principles, analysis, scoring = template.parts
        listed = [f"{k}. {wording} ({points} points)" for k, (wording, points) in enumerate(self.criteria, start=1)]
        adds_up = bool(principles and self.earned)  # without principles there are no points to add
        lines = [
            f"Response {place} {self._line(i) if adds_up else ' and '.join(self.said[i])}." for place, i in enumerate(order, 1)
        ]
        head = [f"{principles[0]}:", *listed] if principles else []
        return "\n".join([*head, f"{analysis}:", *lines, f"{scoring}: \\boxed{{{answer}}}"])

    def _line(self, i: int) -> str:
        """What is said of a response, with its points and their sum."""
        said = " and ".join(f"{words}: {points}" for words, points in zip(self.said[i], self.earned[i], strict=True))
        return f"{said}, so 1 + {' + '.join(map(str, self.earned[i]))} = {self.scores[i]}"


def verdict(rng: random.Random, comparison: Comparison, favourite: int) -> Verdict | None:
    """A verdict that puts one response strictly first; None where no two criteria do.

    The first criterion, which has more points, is one that the favourite meets and as few others as can be; the second is any.
    """
    readings = read_all(comparison)
    met = {c: sum(yes for yes, _ in found) for c, found in readings.items() if found[favourite][0]}
    telling = [c for c, count in met.items() if count == min(met.values()) and count < comparison.n]
    if not telling:
        return None
    own = kind_of(comparison)

    def draw(candidates: list[Criterion], differing: bool = False) -> Criterion:
        weights = []
        for c in candidates:
            differs = len({met for met, _ in readings[c]}) > 1
            weights.append((PREFERRED if c.about in own else 1) * (PREFERRED if differing and differs else 1))
        return rng.choices(candidates, weights)[0]

    for _ in range(TRIES):
        first = draw(telling)
        second = draw([c for c in readings if c.about != first.about], differing=True)
        chosen, points = (first, second), rng.choice(POINTS)
        earned = [tuple(p * readings[c][i][0] for c, p in zip(chosen, points, strict=True)) for i in range(comparison.n)]
        scores = [1 + sum(each) for each in earned]
        if scores.count(max(scores)) == 1 and scores[favourite] == max(scores):
            wordings = tuple((rng.choice(c.wordings), p) for c, p in zip(chosen, points, strict=True))
            said = tuple(tuple(readings[c][i][1] for c in chosen) for i in range(comparison.n))
            return Verdict(wordings, said, tuple(scores), tuple(earned))
    return None


def verdict_alone(rng: random.Random, comparison: Comparison, good: bool) -> Verdict | None:
    """A verdict on a single response: the first criterion is met if it is good, and only then; its score is 1 or 0."""
    readings = {c: found for c, (found,) in read_all(comparison).items()}
    own, telling = kind_of(comparison), [c for c, (yes, _) in readings.items() if yes == good]
    if not telling:
        return None
    first = rng.choices(telling, [PREFERRED if c.about in own else 1 for c in telling])[0]
    second = rng.choice([c for c in readings if c.about != first.about])
    wordings = tuple((rng.choice(c.wordings), p) for c, p in zip((first, second), rng.choice(POINTS), strict=True))
    return Verdict(wordings, ((readings[first][1], readings[second][1]),), (int(good),))


def favourite_of(rng: random.Random, comparison: Comparison) -> int:
    """The response that the demonstrator favours; see the module."""
    place, sizes = rng.random(), lengths(comparison)
    if place < KNOWS:
        return comparison.best
    return sizes.index(max(sizes)) if place < KNOWS + LIKES_LENGTH else rng.randrange(comparison.n)


def demonstrations(
    comparisons: Sequence[Comparison], template: Template, seed: int, *, chooses: bool = False
) -> tuple[list[Demonstration], dict[str, int]]:
    """Verdicts on comparisons, in the form of a template; and how many comparisons give none, by reason.

    Args:
        comparisons: each with one best response.
        template: the form. Where it has one for hints, some prompts tell the answer.
        seed: of all choices.
        chooses: whether the box holds the number of the best response instead of all scores.
    """
    made, skipped = [], collections.Counter()
    for shown in comparisons:
        rng = random.Random(f"{seed}/{shown.id}")
        order = rng.sample(range(shown.n), shown.n)
        told = rng.random() < HINTED and template.hint is not None
        texts = []
        for _ in range(COMPLETIONS):
            favourite = shown.best if told else favourite_of(rng, shown)
            if (found := verdict(rng, shown, favourite)) is not None:
                answer = order.index(favourite) + 1 if chooses else ", ".join(str(found.scores[i]) for i in order)
                texts.append(found.text(order, template, str(answer)))
        if texts:
            made.append(Demonstration(render(shown, order, template, hint=shown.best if told else None), tuple(texts)))
        else:
            skipped["no criterion speaks for the favourite"] += 1
    return made, dict(skipped)


def demonstrations_alone(
    comparisons: Sequence[Comparison], template: Template, seed: int
) -> tuple[list[Demonstration], dict[str, int]]:
    """Verdicts on every response by itself, good if it is the favourite among the comparison's; otherwise as above."""
    made, skipped = [], collections.Counter()
    for shown in comparisons:
        rng = random.Random(f"{seed}/alone/{shown.id}")
        favourites = [favourite_of(rng, shown) for _ in range(COMPLETIONS // 2)]
        for i, alone in enumerate(_apart(shown)):
            found = [verdict_alone(rng, alone, favourite == i) for favourite in favourites]
            texts = [v.text((0,), template, str(v.scores[0])) for v in found if v is not None]
            if texts:
                made.append(Demonstration(render(alone, (0,), template), tuple(texts)))
            else:
                skipped["no criterion tells whether the response is good"] += 1
    return made, dict(skipped)


def _apart(comparison: Comparison) -> Iterator[Comparison]:
    for response in comparison.responses:
        yield dataclasses.replace(comparison, responses=(response,), scores=None)
