"""A demonstrator that judges by what can be computed of a text: the cold start of a judge of real responses.

A verdict names a few criteria with points, says of every response whether it meets them, with a quotation wherever there is one
to give and the points that it earns, and adds these up before it repeats the sums as scores: what a small model must only copy
it learns sooner than what it must work out unseen. Every statement is true of the text, since the feature that it is made from
says so, and the scores follow from the statements.

The criteria are drawn by their weights (`human_weights`), mostly from those by which the responses differ. So the demonstrator
needs no label of what he judges: what people prefer he knows from the weights alone. One verdict sees a few criteria, the sum
of many comes near to all of them: the votes of such a judge are worth more than one verdict, and what remains to be learnt is
which criteria decide. No other model has a part in it.
"""

import collections
import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence

from human_criteria import Criterion, Reading, read_all
from human_weights import Weights

from spct_jax.data.comparison import Comparison
from spct_jax.data.demonstration import Demonstration
from spct_jax.grm.render import render
from spct_jax.grm.template import Template

HINTED = 0.15
"""Share of the comparisons of which a hint tells him which response is best."""
AS_DRAWN = (1.0, 0.25)
"""Share of the verdicts, on two responses and on more, for which the first draw of criteria counts even if it ends in a tie;
of the others one response is strictly first. A judge that never saw a tie written down writes one in bad form, and it comes to
one wherever its criteria do: of the first draws on two training responses 10 % end in a tie for the first place, on three 46 %,
on four 61 % (with a third criterion 30 and 44). A tie is never right, so not all of those are shown."""
COMPLETIONS = 2
"""Verdicts on a comparison in one order of its responses."""
PAIRS = (1, 2)
"""Pairs of opposite orders in which two responses are shown, and more: there are few comparisons of more."""
POINTS = (4, 3, 2)
"""Of the criteria, the weightiest first; a score is one more than the points of those that a response meets."""
FEWER = 2
"""Criteria where there are more than two responses: with three, only 16 % of the verdicts on four would fit into 192 tokens."""
LEAST = 0.05
"""The smallest weight of a criterion that is drawn."""
PREFERRED = 8
"""How much likelier a criterion is drawn by which the responses differ."""
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
        """What is said of a response, with the points that it earns and their sum."""
        each = zip(self.said[i], self.earned[i], strict=True)
        said = " and ".join(f"{words}: {points}" if points else words for words, points in each)
        return f"{said}, so {'+'.join(map(str, (1, *filter(None, self.earned[i]))))}={self.scores[i]}"


def verdict(
    rng: random.Random, comparison: Comparison, weights: Weights, favourite: int | None = None, *, ties: bool = False
) -> Verdict | None:
    """A verdict that puts one response strictly first, this one if it is given; None where no draw of criteria does.

    With `ties` and no favourite, a share of the verdicts (`AS_DRAWN`) may put several first instead.
    """
    any_end = ties and favourite is None and rng.random() < AS_DRAWN[comparison.n > 2]
    worth = weights.of(comparison)
    readings = {c: found for c, found in read_all(comparison).items() if worth.get(c, 0) >= LEAST}
    for _ in range(TRIES):
        chosen = _draw(rng, readings, worth, len(POINTS) if comparison.n <= 2 else FEWER)
        points = POINTS[: len(chosen)]
        earned = [tuple(p * readings[c][i][0] for c, p in zip(chosen, points, strict=True)) for i in range(comparison.n)]
        scores = [1 + sum(each) for each in earned]
        if any_end and chosen or scores.count(max(scores)) == 1 and favourite in (None, scores.index(max(scores))):
            wordings = tuple((rng.choice(c.wordings), p) for c, p in zip(chosen, points, strict=True))
            said = tuple(tuple(readings[c][i][1] for c in chosen) for i in range(comparison.n))
            return Verdict(wordings, said, tuple(scores), tuple(earned))
    return None


def _draw(
    rng: random.Random, readings: Mapping[Criterion, list[Reading]], worth: Mapping[Criterion, float], most: int
) -> list[Criterion]:
    """So many criteria about different things at most, the weightiest first."""
    left, chosen = list(readings), []
    while left and len(chosen) < most:
        differs = [len({met for met, _ in readings[c]}) > 1 for c in left]
        chosen += rng.choices(left, [worth[c] * (PREFERRED if d else 1) for c, d in zip(left, differs, strict=True)])
        left = [c for c in left if c.about != chosen[-1].about]
    return sorted(chosen, key=lambda c: -worth[c])


def draws(comparison: Comparison, weights: Weights, k: int, seed: int) -> list[tuple[int, ...]]:
    """Scores of `k` verdicts, or of none: what a student that imitates them perfectly would draw."""
    rng = random.Random(f"{seed}/draws/{comparison.id}")
    return [v.scores for v in (verdict(rng, comparison, weights, ties=True) for _ in range(k)) if v is not None]


def verdict_alone(rng: random.Random, comparison: Comparison, weights: Weights, good: bool) -> Verdict | None:
    """A verdict on a single response: the first criterion is met if it is good, and only then; its score is 1 or 0."""
    worth = weights.of(comparison)
    readings = {c: found for c, (found,) in read_all(comparison).items() if worth.get(c, 0) >= LEAST}
    telling = [c for c, (yes, _) in readings.items() if yes == good]
    if not telling:
        return None
    first = rng.choices(telling, [worth[c] for c in telling])[0]
    others = [c for c in readings if c.about != first.about]
    chosen = (first, *(rng.choices(others, [worth[c] for c in others]) if others else ()))
    wordings = tuple((rng.choice(c.wordings), p) for c, p in zip(chosen, POINTS, strict=False))
    return Verdict(wordings, (tuple(readings[c][1] for c in chosen),), (int(good),))


def demonstrations(
    comparisons: Sequence[Comparison],
    weights: Weights,
    template: Template,
    seed: int,
    *,
    chooses: bool = False,
    knows: bool = False,
) -> tuple[list[Demonstration], dict[str, int]]:
    """Verdicts on comparisons in opposite orders, in the form of a template; and how many orders give none, by reason.

    Args:
        comparisons: what is judged; of those that a hint tells the best of, and if he `knows`, each has one best response.
        weights: of the criteria.
        template: the form. Where it has one for hints, some prompts tell the answer.
        seed: of all choices.
        chooses: whether the box holds the number of the best response instead of all scores; then there are no ties.
        knows: whether he puts the best response first though no hint tells.
    """
    made, skipped = [], collections.Counter()
    for shown in comparisons:
        rng = random.Random(f"{seed}/{shown.id}")
        told = rng.random() < HINTED and template.hint is not None
        favourite = shown.best if told or knows else None
        for places in _orders(rng, shown.n):
            found = [verdict(rng, shown, weights, favourite, ties=not chooses) for _ in range(COMPLETIONS)]
            texts = [v.text(places, template, _answer(v, places, chooses)) for v in found if v is not None]
            if texts:
                turns = render(shown, places, template, hint=shown.best if told else None)
                made.append(Demonstration(turns, tuple(texts)))
            else:
                skipped["no criteria put one response first"] += 1
    return made, dict(skipped)


def _orders(rng: random.Random, n: int) -> list[list[int]]:
    """The orders in which n responses are shown: each is followed by its opposite."""
    orders = [rng.sample(range(n), n) for _ in range(PAIRS[n > 2])]
    return [places for order in orders for places in (order, order[::-1])]


def _answer(found: Verdict, order: Sequence[int], chooses: bool) -> str:
    if chooses:
        return str(order.index(found.scores.index(max(found.scores))) + 1)
    return ", ".join(str(found.scores[i]) for i in order)


def demonstrations_alone(
    comparisons: Sequence[Comparison], weights: Weights, template: Template, seed: int
) -> tuple[list[Demonstration], dict[str, int]]:
    """Verdicts on every response by itself, good if a verdict on its comparison puts it first; otherwise as above."""
    made, skipped = [], collections.Counter()
    for shown in comparisons:
        rng = random.Random(f"{seed}/alone/{shown.id}")
        judged = [verdict(rng, shown, weights) for _ in range(COMPLETIONS)]
        favourites = [v.scores.index(max(v.scores)) for v in judged if v is not None]
        for i, alone in enumerate(_apart(shown)):
            found = [verdict_alone(rng, alone, weights, favourite == i) for favourite in favourites]
            texts = [v.text((0,), template, str(v.scores[0])) for v in found if v is not None]
            if texts:
                made.append(Demonstration(render(alone, (0,), template), tuple(texts)))
            else:
                skipped["no criterion tells whether the response is good"] += 1
    return made, dict(skipped)


def _apart(comparison: Comparison) -> Iterator[Comparison]:
    for response in comparison.responses:
        yield dataclasses.replace(comparison, responses=(response,), scores=None)
