"""The same completions on one device and on eight: how many are identical, and how far log-probabilities differ.

A random model of the toy size draws 1,000 completions of 125 prompts from fixed seeds, with its rows on one virtual CPU device
and split over eight; then both meshes score the completions of the first. On two CPU cores it takes about two minutes.

    python experiments/studies/compare_meshes.py
"""

import collections
import dataclasses

import jax
import numpy as np

from spct_jax import cli, models, sharding
from spct_jax.data import batches
from spct_jax.models import sizes
from spct_jax.sampling import Engine, Request, SamplingParams, Shape
from spct_jax.sharding.config import MeshConfig
from spct_jax.training import group_logprobs

PROMPTS, SAMPLES, LONGEST = 125, 8, 96
SHAPE = Shape(max_prompt=104, max_new_tokens=LONGEST, rows=16, prefill_rows=8)


def draw(
    layout: sharding.Layout, params, config: models.ModelConfig, prompts: list[list[int]]
) -> dict[tuple[int, int], list[int]]:
    """Tokens by (prompt, sample)."""
    engine = Engine(layout, params, config, SHAPE, SamplingParams(1.0, (1,)))
    keys = jax.random.key_data(jax.random.split(jax.random.key(7), PROMPTS))
    requests = (Request(i, p, np.asarray(keys[i]), collections.deque(range(SAMPLES))) for i, p in enumerate(prompts))
    return {(f.request.tag, f.sample): f.tokens for f in engine.run(requests)}


def main(_) -> None:
    """Draws and scores on both meshes, and prints how well they agree."""
    sharding.use_devices(MeshConfig(8))
    config = dataclasses.replace(sizes.toy(640), final_softcap=10.0)
    fresh = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    rng = np.random.default_rng(0)
    prompts = [rng.integers(6, 640, rng.integers(40, 104)).tolist() for _ in range(PROMPTS)]
    score = jax.jit(group_logprobs.group_logprobs, static_argnames="config")
    drawn, logprobs = [], []
    for count in (1, 8):
        layout = sharding.make_layout(devices=jax.devices()[:count])
        params = jax.device_put(fresh, layout.params(fresh))
        drawn.append(draw(layout, params, config, prompts))
        completions = [[drawn[0][i, s] for s in range(SAMPLES)] for i in range(PROMPTS)]
        spare = -PROMPTS % count
        groups = batches.pack(
            [*prompts, *prompts[:spare]],
            [*completions, *completions[:spare]],
            max_prompt=104,
            max_completion=LONGEST,
            group_size=SAMPLES,
        )
        scored = score(params, config=config, groups=layout.split(groups))[0]
        logprobs.append(np.asarray(scored)[:PROMPTS])
    same = [drawn[0][key] == drawn[1][key] for key in drawn[0]]
    inside = np.arange(LONGEST) < groups.lengths[:PROMPTS, :, None]
    gap = np.abs(logprobs[0] - logprobs[1])[inside].max()
    tokens = sum(map(len, drawn[0].values()))
    print(f"{len(same)} completions, {tokens} tokens: {np.mean(same):.2%} identical on 1 and 8 devices")
    print(f"log-probabilities of the same completions differ by at most {gap:.1e}")


if __name__ == "__main__":
    cli.run(main)
