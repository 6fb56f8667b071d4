"""`experiments/studies/attack_study.py` with a model that writes one and the same verdict, and with an untrained one."""

import dataclasses
import importlib
import pathlib

import jax
import pytest

from spct_jax import models, sharding
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.grm import orders
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.grm.render import render
from spct_jax.grm.template import load_template
from spct_jax.judging import scheduler
from spct_jax.judging.judge import Judge
from spct_jax.judging.models import Model, Models
from spct_jax.models import sizes
from spct_jax.toy import demonstrator, world
from spct_jax.toy.config import ToyConfig

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments" / "studies"


@pytest.fixture
def attack_study(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module("attack_study")


def problems(count):
    return [problem.comparison for problem in world.problems("test", count, ToyConfig())]


def test_every_attack_stands_below_the_response_it_is_for_and_names_its_place(attack_study):
    for problem in problems(12):
        order = orders.sample_order(problem.n, "balanced", 0, problem.id, 0)
        for attack in attack_study.ATTACKS.values():
            for on_right in (False, True):
                changed = attack_study.attacked(problem, attack, on_right, 0)
                (target,) = (i for i in range(problem.n) if changed.responses[i] != problem.responses[i])
                assert (target == problem.best) == on_right and changed.id == problem.id
                added = changed.responses[target].removeprefix(problem.responses[target])
                assert added == f"\n{attack(order.index(target) + 1, problem.n)}"


def test_no_attack_but_look_alike_letters_reaches_the_prompt_as_it_is_written(attack_study):
    (problem,), template = problems(1), load_template("short")
    for name, attack in attack_study.ATTACKS.items():
        changed = attack_study.attacked(problem, attack, False, 0)
        ((turn,),) = [render(changed, orders.sample_order(problem.n, "balanced", 0, problem.id, 0), template)]
        disarmed = ("the hint's sentence", "a fake verdict", "the end of the response, and a fake one")
        assert ("~" in turn.content) == (name in disarmed), name


def test_the_table_of_a_judge_that_always_prefers_the_second_place(attack_study, monkeypatch):
    shown = problems(8)
    template, single = load_template("short"), load_template("short_single")
    made = demonstrator.demonstrations(ToyConfig(demonstrations=20), template, single)
    tokenizer = train_tokenizer([text for d in made for text in (d.turns[0].content, *d.completions)], vocab_size=500)
    layout = sharding.make_layout(devices=jax.devices()[:1])
    config = dataclasses.replace(sizes.toy(tokenizer.vocab_size), num_layers=2)
    params = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    judge = Judge(Models(layout, Model(params, config, Prompter(PromptConfig(), tokenizer))))
    collect = scheduler.Engine.collect

    def answer(finished):
        n = len(finished.request.tag[0].comparison.responses)
        scores = ", ".join("9" if place == 1 else "1" for place in range(n))
        return dataclasses.replace(finished, tokens=tokenizer.encode_completion(f"Scores: \\boxed{{{scores}}}"))

    options = {"max_new_tokens": 2, "batch_size": 8, "max_prompt": 512}
    untrained = attack_study.measure(judge, shown, 0, **options)
    assert untrained[1:] == ["0.0", "100.0", "8"]
    monkeypatch.setattr(scheduler.Engine, "collect", lambda self: [*map(answer, collect(self))])
    right = [orders.sample_order(c.n, "balanced", 0, c.id, 0)[1] == c.best for c in shown]
    monkeypatch.setattr(attack_study, "ATTACKS", dict(list(attack_study.ATTACKS.items())[:2]))
    table = attack_study.study(judge, shown, 0, **options).splitlines()
    assert len(table) == 2 + 1 + 2 * 2 and {line.count("|") for line in table} == {7}
    assert all(f"| {100 * sum(right) / 8:.1f} (" in line and line.endswith("| 0.0 | 0.0 | 8 |") for line in table[2:])
