"""What completions say, on their way from the sampler to what is learned from them."""

import functools
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from stand_ins import KeyedEngine

from spct_jax import pipeline
from spct_jax.data.comparison import Comparison
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm import rewards
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.grm.template import load_template
from spct_jax.sampling import Shape, engine_size
from spct_jax.toy import demonstrator
from spct_jax.toy.config import ToyConfig
from spct_jax.training import parameters, rejection, rollout

PAIR = Comparison(id="a", conversation=[{"role": "user", "content": "q"}], responses=["x", "y"], scores=[9, 1])


@functools.cache
def prompter():
    shown = demonstrator.demonstrations(ToyConfig(demonstrations=20), load_template("short"), load_template("short_single"))
    return Prompter(PromptConfig(), train_tokenizer([c for d in shown for c in d.completions], vocab_size=400))


@pytest.fixture
def drawn():
    """Three completions that say the same and are right; one ends, one goes on, one is cut; and an empty one."""
    whole = prompter().tokenizer.encode_completion("Scores: \\boxed{1, 9}")
    rambling = prompter().tokenizer.encode("Scores: \\boxed{1, 9}\nand so on and so on")
    return prompter().read(PAIR, (1, 0), [whole, rambling, whole[:-1], []])


def test_a_completion_cut_at_the_limit_earns_nothing(drawn):
    assert drawn.truncated == (False, True, True, True) and drawn.scores == ((9, 1), None, None, None)
    assert [rewards.reward(s, drawn.truth) for s in drawn.scores] == [1, -1, -1, -1]
    assert rejection.correct(drawn) == [True, False, False, False]
    assert rejection.retain(rejection.correct(drawn), rejection.correct(drawn), drop_too_easy=True) == ([0], [0])


def test_files_keep_what_was_read(drawn, tmp_path):
    rollout.write(tmp_path / "drawn.jsonl", [drawn])
    (found,) = rollout.read(tmp_path / "drawn.jsonl")
    for field in ("id", "order", "scores", "truncated", "truth"):
        assert getattr(found, field) == getattr(drawn, field)
    assert found.texts is None and json.loads((tmp_path / "drawn.jsonl").read_text())["texts"] == list(drawn.texts)
    assert [c.tolist() for c in found.completions] == [c.tolist() for c in drawn.completions]
    (tmp_path / "drawn.jsonl").write_text('\n{"id": "a", "completions": [[1]]}\n')
    with pytest.raises(InputError, match="drawn.jsonl:2: not a rollout"):
        rollout.read(tmp_path / "drawn.jsonl")


def test_rollouts_take_four_bytes_a_token(tmp_path):
    """Read from a file, drawn, and as one process hands them to another; Python's own integers would take 36."""
    rng, file = np.random.default_rng(0), tmp_path / "drawn.jsonl"
    given = [rng.integers(6, prompter().tokenizer.vocab_size, 5000, np.int32) for _ in range(8)]
    rollout.write(file, [prompter().read(PAIR, (1, 0), given)])
    tracemalloc.start()
    try:
        for make in (lambda: rollout.read(file), lambda: pickle.loads(pickle.dumps(rollout.read(file)))):
            before = tracemalloc.get_traced_memory()[0]
            held = make()
            assert tracemalloc.get_traced_memory()[0] - before < 4.5 * 8 * 5000
            assert held[0].completions[7].tolist() == given[7].tolist()
            del held
    finally:
        tracemalloc.stop()
    assert {c.dtype for c in prompter().read(PAIR, (1, 0), given).completions} == {np.dtype(np.int32)}


def test_no_bit_of_a_draw_that_refills_depends_on_what_else_is_drawn(micro_config, tmp_path):
    """Two rows of two branches on each device; groups of two are the first two of four."""
    run = pipeline.prepare(micro_config, tmp_path)
    shape = Shape(run.limits.max_prompt, run.limits.max_completion, rows=4, branches=2, prefill_rows=2)
    params = parameters.for_sampling(run, parameters.initial(run))

    def draw(numbers, samples):
        drawn, logprobs = rollout.draw(run, params, numbers, run.key("rl"), shape=shape, samples=samples, temperature=1.0)
        return {r.id: ([c.tolist() for c in r.completions], p.tolist()) for r, p in zip(drawn, logprobs, strict=True)}

    whole, part = draw([5, 0, 3, 8, 1, 7, 2, 11, 4], 4), draw([2, 5, 11], 2)
    assert len(whole) == 9 and part == {name: tuple(x[:2] for x in whole[name]) for name in part}


def test_a_stage_that_chose_its_slots_is_not_gone_on_with_where_there_is_less_memory(micro_config, tmp_path, monkeypatch):
    run = pipeline.prepare(micro_config, tmp_path)
    shapes = []
    for there in (16, 32):
        monkeypatch.setattr(engine_size, "memory_of", lambda _, there=there: there << 30)
        shapes.append(rollout.shape_of(run, "rl", slots=0, prompts=8, samples=4))
    assert shapes[0] == shapes[1]
    monkeypatch.setattr(engine_size, "memory_of", lambda _: 8 << 30)
    with pytest.raises(
        InputError, match=r"^rl: shapes were chosen for 16\.00 GiB .* these have 8\.00: go on with a config\.rl\.slots"
    ):
        rollout.shape_of(run, "rl", slots=0, prompts=8, samples=4)
    assert rollout.shape_of(run, "rl", slots=8, prompts=8, samples=4).rows


def test_a_comparison_that_comes_up_again_in_a_step_is_drawn_anew(micro_config, tmp_path, monkeypatch):
    run = pipeline.prepare(micro_config, tmp_path)

    monkeypatch.setattr(rollout, "Engine", KeyedEngine)

    def draw(numbers):
        shape = Shape.of_groups(run.limits.max_prompt, run.limits.max_completion, 4, 4)
        return rollout.draw(run, None, numbers, run.key("rl", 5), shape=shape, samples=4, temperature=1.0, index=5)[0]

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
