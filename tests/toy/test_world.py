"""The toy world: truth, margin, splits, and demonstrations that are right in form and wrong in part."""

import re

import pytest

from spct_jax import config as configs
from spct_jax.config import validate
from spct_jax.data.config import SPLITS
from spct_jax.errors import InputError
from spct_jax.grm import parse
from spct_jax.grm.template import load_template
from spct_jax.toy import demonstrator, world
from spct_jax.toy.config import ToyConfig

CONFIG = ToyConfig(demonstrations=400)
WEIGHT = {"need": 5, "want": 3, "like": 1}


def truth(comparison):
    """Scores computed from nothing but the English text."""
    weights = {word: WEIGHT[verb] for verb, word in re.findall(r"(need|want|like) (\w+)", comparison.query)}
    return tuple(1.0 + sum(w for word, w in weights.items() if word in re.findall(r"\w+", r)) for r in comparison.responses)


@pytest.mark.parametrize("split", SPLITS)
def test_truth_can_be_read_off_the_text_and_the_best_has_a_margin(split):
    for shown in world.problems(split, 300, CONFIG):
        comparison = shown.comparison
        if comparison.n == 1:
            assert comparison.scores[0] == float(truth(comparison)[0] >= 9)
            continue
        assert comparison.scores == truth(comparison) and 2 <= comparison.n <= 4
        best, second = sorted(comparison.scores, reverse=True)[:2]
        assert best - second >= CONFIG.margin and comparison.best == comparison.scores.index(best)


def test_test_problems_have_combinations_of_their_own():
    seen = {s: {frozenset(p.requirements) for p in world.problems(s, 1500, CONFIG)} for s in SPLITS}
    assert seen["test"] and not seen["test"] & (seen["train"] | seen["development"])
    assert seen["development"] <= seen["train"]


def test_problems_depend_on_split_index_and_seed_alone():
    assert world.problem("test", 7, CONFIG) == world.problems("test", 8, CONFIG)[7]
    assert world.problem("test", 7, CONFIG) != world.problem("test", 7, ToyConfig(seed=1))


@pytest.mark.parametrize("end", ["", "_no_principles"])
def test_demonstrations_have_the_form_and_some_are_wrong(end):
    template, single = load_template(f"short{end}"), load_template(f"short_single{end}")
    right = wrong = 0
    for shown in demonstrator.demonstrations(CONFIG, template, single):
        text = shown.turns[-1].content
        n = text.count("[Response ")
        low, high = (0, 1) if n == 1 else (1, 10)
        for completion in shown.completions:
            scores = parse.parse(completion, n, parts=template.parts, low=low, high=high)
            assert scores is not None, completion
            assert ("Specific Criteria:" in completion) == (not end)
            if n > 1:
                responses = re.split(r"\[Response \d\]\n", text)[1:]
                query = text.split("[Response 1]")[0]
                for place, line in re.findall(r"Response (\d): (.*) = ", completion):
                    quoted = re.findall(r"(\w+) \((.)\)", line)
                    words = re.findall(r"\w+", responses[int(place) - 1].split("has")[1].splitlines()[0])
                    assert [word for word, _ in quoted] == words, "the analysis quotes the response"
                    assert all(number in "123-" for _, number in quoted), "criteria go by number"
                best = _best(query, [r.splitlines()[0] for r in responses])
                hit = all(scores[best] > s for i, s in enumerate(scores) if i != best)
                right, wrong = right + hit, wrong + (not hit)
    assert 0.3 < right / (right + wrong) < 0.9


def _best(query, responses):
    weights = {word: WEIGHT[verb] for verb, word in re.findall(r"(need|want|like) (\w+)", query)}
    totals = [sum(w for word, w in weights.items() if word in re.findall(r"\w+", r)) for r in responses]
    return totals.index(max(totals))


def test_hinted_demonstrations_arrive_at_the_answer():
    template, single = load_template("short"), load_template("short_single")
    hinted = [d for d in demonstrator.demonstrations(CONFIG, template, single) if "known to be best" in d.turns[0].content]
    assert len(hinted) > 20
    for shown in hinted:
        text = shown.turns[0].content
        place = int(re.search(r"Response (\d) is known to be best", text)[1])
        for completion in shown.completions:
            scores = parse.parse(completion, text.count("[Response "), parts=template.parts)
            assert all(scores[place - 1] > s for i, s in enumerate(scores) if i != place - 1)


def test_the_demonstrator_falls_for_the_lure_the_oftener_the_more_festive_the_occasion():
    rates = [demonstrator.lure_rate(occasion, CONFIG) for occasion in world.OCCASIONS]
    assert rates == sorted(rates) and (rates[0], rates[-1]) == pytest.approx(CONFIG.lure)
    template, single = load_template("short"), load_template("short_single")
    fell = {occasion: [] for occasion in world.OCCASIONS}
    for shown in demonstrator.demonstrations(ToyConfig(demonstrations=4000, demonstration_mix=(1, 0, 0)), template, single):
        text = shown.turns[-1].content
        if world.LURE in text:
            occasion = re.search(r"For my (\w+)", text)[1]
            fell[occasion] += [f"{world.LURE} (2)" in c.split("Analysis")[0] for c in shown.completions]
    for occasion, rate in zip(world.OCCASIONS, rates, strict=True):
        assert sum(fell[occasion]) / len(fell[occasion]) == pytest.approx(rate, abs=0.08), occasion


def test_a_lure_that_is_no_rate_is_refused():
    config = configs.tiny()
    config.data.toy.lure = (0.3, 1.0)
    with pytest.raises(InputError, match="config.data.toy.lure"):
        validate(config)


def test_demonstrations_of_an_llm_judge_name_the_best_response():
    template, single = load_template("short_judge"), load_template("short_single")
    shown = demonstrator.demonstrations(CONFIG, template, single, chooses=True)
    named, hinted = [], 0
    for demonstration in shown:
        text, n = demonstration.turns[0].content, demonstration.turns[0].content.count("[Response ")
        place = re.search(r"Response (\d) is known to be best", text)
        for completion in demonstration.completions:
            if "Best:" not in completion:
                assert n == 1 and parse.parse(completion, 1, parts=single.parts, low=0, high=1) is not None
                continue
            choice = parse.parse_choice(completion, n, template.parts)
            totals = [int(total) for total in re.findall(r"Response \d: .* = (\d+)", completion)]
            assert totals[choice] == max(totals) and len(totals) == n > 1
            named.append(choice)
            if place:
                hinted += 1
                assert choice == int(place[1]) - 1
    assert hinted > 20 and {0, 1, 2, 3} == set(named)
