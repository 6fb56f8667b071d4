"""Which comparisons are drawn on, and draws on them with a stand-in for the sampler whose tokens are functions of the keys."""

import copy
import dataclasses
import json

import jax
import numpy as np

from spct_jax import pipeline
from spct_jax.data import batches
from spct_jax.evaluation import evaluate
from spct_jax.sampling.generate import Completions
from spct_jax.training import drawing, grouped, rejection


def config_of(config, **changes):
    return dataclasses.replace(copy.deepcopy(config), **changes)


def test_a_comparison_that_comes_up_again_in_a_step_is_drawn_anew(micro_config, tmp_path, monkeypatch):
    run = pipeline.prepare(micro_config, tmp_path)

    def draw_rows(layout, params, config, prompts, keys, **_):
        tokens = jax.vmap(jax.vmap(lambda key: jax.random.randint(key, (3,), 6, config.vocab_size)))(keys)
        lengths = np.full(tokens.shape[:2], 3)
        return Completions(tokens=np.asarray(tokens), lengths=lengths, logprobs=np.zeros(tokens.shape, np.float32))

    monkeypatch.setattr(grouped, "draw_rows", draw_rows)

    def draw(numbers):
        return drawing.draw(run, None, numbers, run.key("rl", 5), samples=4, rows=4, temperature=1.0, index=5)[0]

    def tokens(rollouts):
        return [tuple(c.tolist()) for r in rollouts for c in r.completions]

    four = next(number for number, n in enumerate(run.dataset.responses) if n == 4)
    other = (four + 1) % len(run.dataset.train)
    once, often = draw([four, other]), draw([four, other, four, four, four, four, other, four])
    assert [r.order for r in often[:2]] == [r.order for r in once] and tokens(often[:2]) == tokens(once), (
        "what comes up once is drawn as it always was"
    )
    equals = [r for r in often if r.id == once[0].id]
    assert len(equals) == 6
    assert len(set(tokens(equals))) == 24
    assert len({r.order for r in equals}) > 3


def test_a_number_of_problems_is_a_sample_of_the_file_and_not_its_beginning(micro_config, tmp_path):
    run = pipeline.prepare(micro_config, tmp_path)
    drawn_on = [number for _, numbers in rejection._batches(run) for number in numbers]
    evaluate.run_evaluation(dataclasses.replace(run, config=config_of(micro_config, stages=("evaluate",))))
    ids = [json.loads(line)["id"] for line in (tmp_path / "evaluate" / "problems.jsonl").read_text().splitlines()]
    evaluated = [[c.id for c in run.dataset.test].index(id) for id in ids]
    for chosen, size, count in ((drawn_on, 24, 48), (evaluated, 10, 24)):
        assert len(set(chosen)) == size and chosen == sorted(chosen) and chosen[-1] >= size and chosen[-1] < count
    every = config_of(micro_config)
    every.rejection.problems = 0
    assert [n for _, numbers in rejection._batches(dataclasses.replace(run, config=every)) for n in numbers] == list(range(48))


def test_a_sample_is_a_function_of_seed_and_stage_and_favours_no_record():
    assert batches.sample(0, "a", 5, 0).tolist() == batches.sample(0, "a", 5, 5).tolist() == [0, 1, 2, 3, 4]
    assert batches.sample(0, "a", 1000, 100).tolist() == batches.sample(0, "a", 1000, 100).tolist()
    samples = [batches.sample(seed, stage, 40, 10).tolist() for seed in range(200) for stage in ("rejection", "evaluate")]
    assert len(set(map(tuple, samples))) == len(samples)
    counts = np.bincount(np.concatenate(samples), minlength=40)
    assert 60 < counts.min() and counts.max() < 140  # 100 expected, with a standard deviation of 8.7
