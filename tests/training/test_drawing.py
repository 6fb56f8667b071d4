"""Draws on training comparisons, with a stand-in for the sampler whose tokens are functions of the keys."""

import jax
import numpy as np

from spct_jax import train
from spct_jax.sampling import grouped
from spct_jax.sampling.generate import Completions
from spct_jax.training import drawing


def test_a_comparison_that_comes_up_again_in_a_step_is_drawn_anew(micro_config, tmp_path, monkeypatch):
    run = train.prepare(micro_config, tmp_path)

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
