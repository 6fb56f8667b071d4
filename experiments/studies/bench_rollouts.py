r"""What slots that refill are worth in a rollout: a step of RL whose completions have the lengths of real verdicts.

    python experiments/studies/bench_rollouts.py [--prompts=128] [--slots=16,32,64] [--parts=1,4]

Prompts of 255 tokens with four completions each. The length of a completion is log-normal and drawn from its key, 60 to 1,024
tokens and 260 in the mean; the stop rule is made to end it there. The model is that of `bench_sampling.py` or, with `--small`,
one of width 128. They are drawn in static batches, as many prompts at once as a part has, each part as long as its longest
completion; and in slots that refill. Ways alternate in one run. Ratios are medians over the rounds, of CPU seconds and of
wall-clock seconds, against the first of the static ways. Prints a table.
"""

import argparse
import collections
import dataclasses
import sys
import time
from collections.abc import Callable
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np
from sampler_comparison import model_config

from spct_jax import models, sharding
from spct_jax.models import sizes
from spct_jax.sampling import Engine, Request, SamplingParams, Shape, Usage, kernel
from spct_jax.sampling.engine_programs import engine_programs
from spct_jax.sampling.engine_size import Sizes
from spct_jax.sharding.config import MeshConfig

STOP, PROMPT, LIMIT, SAMPLES = 1, 256, 1024, 4
SMALL = dataclasses.replace(sizes.toy(512), width=128, ffw_width=512, window=1024)


def stop_at_forced_lengths(sample: Callable) -> Callable:
    """The sampler of a token, so that each branch ends at a length that follows from its key, and nowhere else."""

    def drawn(logits, keys, positions, sampling):
        token, logprob = sample(logits, keys, positions, sampling)
        spread = jax.vmap(jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, LIMIT))))(keys)
        length = jnp.clip(jnp.exp(jnp.log(230) + 0.5 * spread), 60, LIMIT).astype(jnp.int32)
        return jnp.where(positions + 1 >= length, STOP, jnp.where(token == STOP, STOP + 1, token)), logprob

    return drawn


def draw(engine: Engine, prompts: list[list[int]], keys: np.ndarray, at_once: int) -> dict[tuple[int, int], int]:
    """The lengths of all completions, so many prompts begun at once."""
    found = {}
    for start in range(0, len(prompts), at_once):
        numbers = range(start, min(start + at_once, len(prompts)))
        wanted = [Request(i, prompts[i], keys[i], collections.deque(range(SAMPLES))) for i in numbers]
        found |= {(done.request.tag, done.sample): len(done.tokens) for done in engine.run(wanted)}
    return found


def main() -> int:
    """Measures and prints; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--slots", default="16,32,64", help="Of engines that refill; 0: as `rl.slots=0` chooses.")
    parser.add_argument("--parts", default="1,4", help="Of static batches.")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="A model whose attention takes most of the time.")
    flags = parser.parse_args()
    config = SMALL if flags.small else model_config()
    sharding.use_devices(MeshConfig(cpu_devices=1))
    kernel.sample_token = stop_at_forced_lengths(kernel.sample_token)
    layout, B = sharding.make_layout(), flags.prompts
    params = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    prompts = np.random.default_rng(0).integers(3, config.vocab_size, (B, PROMPT - 1)).tolist()
    keys = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(1), B)))

    ways, sampling = {}, SamplingParams(1.0, (STOP,))
    for parts in map(int, flags.parts.split(",")):
        ways[f"static, {parts} part{'s' * (parts > 1)}"] = Shape.of_groups(PROMPT, LIMIT, B // parts, SAMPLES), B // parts
    for slots in map(int, flags.slots.split(",")):
        shape = Sizes(layout, config).of_slots(slots, PROMPT, LIMIT, SAMPLES, B)
        asked = "" if slots else ", slots=0"
        ways[f"refilled{asked}, {shape.rows} x {shape.branches} x {shape.trunks}"] = shape, B
    with futures.ThreadPoolExecutor(1) as pool:
        for shape, _ in ways.values():
            engine_programs(layout, config, shape, sampling).compile_ahead(pool, shape.levels(shape.split(shape.max_prompt)))

    spent, lengths, used = collections.defaultdict(list), {}, {}
    for _ in range(flags.rounds):
        for name, (shape, at_once) in ways.items():
            usage = Usage()
            engine = Engine(layout, params, config, shape, sampling, usage)
            begun = time.process_time(), time.perf_counter()
            lengths[name] = draw(engine, prompts, keys, at_once)
            spent[name].append((time.process_time() - begun[0], time.perf_counter() - begun[1]))
            print(f"{name}: {spent[name][-1][0]:.1f} s of CPU time", file=sys.stderr, flush=True)
            used[name] = usage.useful_slots, usage.slot_steps // (shape.rows * shape.branches)
    first = next(iter(ways))
    assert all(lengths[name] == lengths[first] for name in ways), "the ways drew other completions"
    tokens = sum(lengths[first].values())
    print(f"{tokens:,} tokens, {tokens / B / SAMPLES:.0f} a completion, the longest {max(lengths[first].values()):,}\n")
    print("| way | slots | steps | useful slots | tokens per CPU second | ratio | tokens per second | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, (shape, _) in ways.items():
        times = np.array(spent[name])
        ratio, rate = np.median(np.array(spent[first]) / times, 0), np.median(tokens / times, 0)
        useful, steps = used[name]
        row = f"{shape.rows * shape.branches} | {steps:,} | {100 * useful:.1f} %"
        print(f"| {name} | {row} | {rate[0]:,.0f} | {ratio[0]:.2f} | {rate[1]:,.0f} | {ratio[1]:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
