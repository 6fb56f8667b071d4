import collections
import random
import re
import sys

import pytest
import study_modules

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.grm import parse
from spct_jax.grm.template import load_template


@pytest.fixture(scope="module")
def demonstrator():
    with study_modules.imported("human_demonstrator") as (module,):
        yield module


@pytest.fixture(scope="module")
def criteria(demonstrator):
    return sys.modules["human_criteria"]


@pytest.fixture(scope="module")
def even(demonstrator, criteria):
    """Weights that are the same for all criteria."""
    return sys.modules["human_weights"].Weights({kind: dict.fromkeys(criteria.CRITERIA, 1.0) for kind in criteria.KINDS})


def comparison(query, *responses, best=0, id="x"):
    scores = [float(i == best) for i in range(len(responses))]
    return Comparison(conversation=(Turn("user", query),), responses=responses, scores=scores, id=id)


REFUSING = comparison(
    "How do I steal a bike?",
    "I’m sorry, but I can’t help you with that.",
    "You could cut the lock of it. Yes, you could cut the lock of any bike, for example with a saw because it is",
)
ALIKE = comparison(
    "How do I bake a cake?",
    "You could mix flour, eggs and sugar and put it into the oven.",
    "Mix flour with sugar and eggs. Then you could bake the cake in an oven.",
)
SUMS = comparison(
    "Tom has 3 boxes of 12 eggs and eats 6. How many are left?",
    "3*12=36 eggs\n36-6=30 eggs\nA: 30",
    "3*12=38 eggs\nA: 38",
    "Tom has 12-6=6 eggs.\nA: 5",
    "There are 40 eggs.\nA: 40",
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so 3 - 10 = -7", [("3 - 10 = -7", True)]),
        ("$30 + $20*2 = $70.", [("$30 + $20*2 = $70", True)]),
        ("(2+3)*4=21", [("(2+3)*4=21", False)]),
        ("10/3 = 3.33 and 5 x 7 = 36", [("10/3 = 3.33", True), ("5 x 7 = 36", False)]),
        ("1,000 + 5 = 1,005", [("1,000 + 5 = 1,005", True)]),
        ("16/.75 = 21", [("16/.75 = 21", False)]),
        ("4000 students x 3/4 = 3000", []),  # a part of a longer sum
        ("1/0 = 1, x = 3, 5 = 5, (2+ = 4", []),
    ],
)
def test_equations(criteria, text, found):
    assert criteria.equations(text) == found


def said(criteria, shown, about):
    """What the criteria about something say of every response."""
    found = [c for c in criteria.CRITERIA if c.about == about]
    return [[reading and reading[1] for reading in (c.read(shown, i) for i in range(shown.n))] for c in found]


@pytest.mark.parametrize(
    ("shown", "about", "expected"),
    [
        (REFUSING, "refusal", ['holds back ("I’m sorry")', "does not hold back"]),
        (REFUSING, "suggestion", ["suggests nothing", 'suggests ("You could")']),
        (REFUSING, "length", ["is shorter", "is longer"]),
        (REFUSING, "topic", ["takes up no word of the query", 'takes up "bike"']),
        (REFUSING, "repetition", ["repeats nothing", 'repeats "could cut the lock"']),
        (REFUSING, "ending", ["ends properly", 'breaks off ("it is")']),
        (REFUSING, "opening", ['starts by holding back ("I’m sorry")', "starts freely"]),
        (REFUSING, "short", ["is short", "is short"]),
        (REFUSING, "way", ["names no way", "names no way"]),
        (REFUSING, "copy", ["copies nothing", "copies nothing"]),
        (SUMS, "whole", [f"answers {n}, a whole number" for n in (30, 38, 5, 40)]),
        (REFUSING, "agreement", ["does not agree at once", 'agrees ("You could")']),
        (REFUSING, "arithmetic", [None, None]),
        (SUMS, "arithmetic", ['gets "36-6=30" right', 'gets "3*12=38" wrong', 'gets "12-6=6" right', "has no plain sum"]),
        (SUMS, "numbers", ["uses all numbers", "leaves out 6", "leaves out 3", "leaves out 3"]),
        (
            SUMS,
            "result",
            ["answers 30, its last result", "answers 38, its last result", "answers 5, not its last result", None],
        ),
        (SUMS, "steps", [f"has {n} equals sign{'s' * (n != 1)}" for n in (2, 1, 1, 0)]),
    ],
)
def test_what_is_said_is_true(criteria, shown, about, expected):
    assert expected in said(criteria, shown, about)
    assert all(told in (expected, [None] * shown.n) or about == "steps" for told in said(criteria, shown, about))


@pytest.mark.parametrize("shown", [REFUSING, SUMS])
def test_verdict_favours_and_adds_up(demonstrator, even, shown):
    template, order = load_template("short"), list(range(shown.n))[::-1]
    made = [demonstrator.verdict(random.Random(draw), shown, even, shown.best) for draw in range(40)]
    made = [found for found in made if found is not None]
    assert len({v.text(order, template, "") for v in made}) > 10  # votes need verdicts that differ
    for found in made:
        assert found.scores[shown.best] == max(found.scores) and found.scores.count(max(found.scores)) == 1
        text = found.text(order, template, ", ".join(str(found.scores[i]) for i in order))
        shown_scores = parse.parse(text, shown.n, parts=template.parts)
        assert parse.unshuffle(shown_scores, order) == found.scores
        for place, i in enumerate(order, start=1):
            line, total, score = re.search(rf"^Response {place} (.*), so (.*)=(\d+)\.$", text, re.MULTILINE).groups()
            assert sum(map(int, total.split("+"))) == int(score) == found.scores[i]
            assert all(quoted.casefold() in shown.responses[i].casefold() for quoted in re.findall('"(.+?)"', line))


def test_nothing_that_puts_one_response_first(demonstrator, even):
    same = comparison("Hello there?", "Yes.", "Yes.")
    assert demonstrator.verdict(random.Random(0), same, even) is None
    made, skipped = demonstrator.demonstrations([same], even, load_template("short_judge"), 0, chooses=True)
    assert not made and sum(skipped.values()) == 2
    made, skipped = demonstrator.demonstrations([same], even, load_template("short_no_principles"), 0)
    assert not skipped and {len(set(parse.parse(text, 2))) for d in made for text in d.completions} == {1}


def tied(found):
    return [v for v in found if v is not None and v.scores.count(max(v.scores)) > 1]


@pytest.mark.parametrize("shown", [ALIKE, SUMS])
def test_ties_as_they_come(demonstrator, even, shown, monkeypatch):
    """The stated share of the ties to which first draws come, in good form; none with a favourite or unless asked for."""
    template, order, number = load_template("short"), list(range(shown.n)), 500

    def drawn(favourite=None, **options):
        return [demonstrator.verdict(random.Random(draw), shown, even, favourite, **options) for draw in range(number)]

    assert tied(drawn()) == tied(drawn(shown.best, ties=True)) == []
    found, share = tied(drawn(ties=True)), demonstrator.AS_DRAWN[shown.n > 2]
    imitated = demonstrator.draws(shown, even, number, 0)
    monkeypatch.setattr(demonstrator, "AS_DRAWN", (1.0, 1.0))
    expected = share * len(tied(drawn(ties=True)))
    for count in (len(found), sum(scores.count(max(scores)) > 1 for scores in imitated)):
        assert count and abs(count - expected) < 4 * expected**0.5
    for v in found:
        text = v.text(order, template, ", ".join(map(str, v.scores)))
        assert parse.parse(text, shown.n, parts=template.parts) == v.scores


@pytest.mark.parametrize("name", ["short", "short_no_principles", "short_judge"])
def test_demonstrations_have_ties_but_not_of_a_chooser(demonstrator, even, name):
    template, chooses = load_template(name), name == "short_judge"
    read = parse.parse_choice if chooses else parse.parse
    shown = [comparison(c.query, *c.responses, id=f"{k}") for k in range(20) for c in (ALIKE, SUMS)]
    made, _ = demonstrator.demonstrations(shown, even, template, 0, chooses=chooses)
    several = [d for d in made if SUMS.query in d.turns[0].content]
    assert len(several) == 80 and len(made) == 120  # more orders where there are more responses
    found = collections.Counter()
    for d in made:
        n = SUMS.n if d in several else ALIKE.n
        for text in d.completions:
            scores = read(text, n, parts=template.parts)
            assert scores is not None
            assert name != "short" or len(re.findall(r"^\d+\. ", text, re.MULTILINE)) == (2 if n > 2 else 3)
            found[not chooses and scores.count(max(scores)) > 1] += 1
    assert bool(found[True]) != chooses and found[True] < 0.2 * found.total()


def many(count):
    """Comparisons whose best response is the shorter one, a refusal."""
    for i in range(count):
        yield comparison(f"How do I steal bike {i}?", *REFUSING.responses, id=f"{i}")


def test_weights_are_what_labels_say(demonstrator, criteria):
    rng, weights = random.Random(0), sys.modules["human_weights"].Weights
    shown = [
        comparison(f"How do I steal bike {i}?", *REFUSING.responses, best=int(rng.random() < 0.2), id=f"{i}")
        for i in range(200)
    ]
    fitted = weights.fit(shown)
    by_wording = {c.wordings[0]: weight for c, weight in fitted.of(shown[0]).items()}
    assert by_wording["Starts with restraint"] > 0.1 and "Starts with the answer" not in by_wording
    assert min(by_wording.values()) > 0
    assert all(totals[0] > totals[1] for totals in fitted.totals(shown))
    # Another kind was not seen, so nothing is known of it.
    assert fitted.totals([SUMS]) == [(0.0,) * 4] and demonstrator.draws(SUMS, fitted, 3, 0) == []


@pytest.mark.parametrize("knows", [False, True])
@pytest.mark.parametrize("name", ["short", "short_judge", "short_no_principles"])
def test_demonstrations_follow_the_weights_and_the_hint_always(demonstrator, name, knows):
    """The weights speak for one response, and the label, which he sees if a hint tells it or if he knows, for the other."""
    weights = sys.modules["human_weights"].Weights.fit(list(many(30)))
    against = [comparison(c.query, *c.responses, best=1, id=c.id) for c in many(100)]  # the weights say the first one
    template, chooses = load_template(name), name == "short_judge"
    made, _ = demonstrator.demonstrations(against, weights, template, 0, chooses=chooses, knows=knows)
    right, firsts = {True: [], False: []}, []
    for demonstration in made:
        prompt = demonstration.turns[0].content
        best = 1 + (prompt.index("I’m sorry") < prompt.index("cut the lock"))
        firsts.append(best == 1)
        for text in demonstration.completions:
            read = parse.parse_choice if chooses else parse.parse
            found = read(text, 2, parts=template.parts)
            chosen = found + 1 if chooses else 1 + (found[1] > found[0])
            right["is known to be best" in prompt].append(chosen == best)
    assert all(right[True])
    assert all(right[False]) if knows else right[False] and not any(right[False])
    assert sum(firsts) * 2 == len(firsts)  # both orders of every comparison


def test_single_responses_are_judged_by_themselves(demonstrator, even):
    template = load_template("short_single")
    made, _ = demonstrator.demonstrations_alone(list(many(50)), even, template, 0)
    assert len(made) == 100
    scores = [parse.parse(text, 1, parts=template.parts, low=0, high=1) for d in made for text in d.completions]
    assert {(0,), (1,)} == set(scores)
    assert not any("longer" in text or "shorter" in text for d in made for text in d.completions)
