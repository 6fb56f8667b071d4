"""GRPO with the trunk shared against the same step with every prompt repeated: equal gradients, then times and memory.

Both sides are our own step, with the same remat and attention. The repeated side has one completion per trunk, at the
fastest of several micro-batches. The promise is by arithmetic: products with weights, attention as causal half, logits of the
completions; forward and backward multiply both sides alike. Times are medians of interleaved pairs, the optimiser included.
Beside the wall clock stands the CPU time of all threads, which other work on the machine disturbs less; the micro-batch is
chosen by it.

    python experiments/studies/bench_grpo.py --repeats=3
"""

import dataclasses
import time

import jax
import numpy as np
import optax
from absl import flags

from spct_jax import cli, models, sharding
from spct_jax.checkpoints import train_state
from spct_jax.data.batches import Groups
from spct_jax.errors import InputError
from spct_jax.models import sizes
from spct_jax.sharding.config import MeshConfig
from spct_jax.training import buckets, group_rewards, grpo
from spct_jax.training.metrics import compute
from spct_jax.training.micro_batches import Batch, Part

MODEL = dataclasses.replace(
    sizes.toy(512),
    num_layers=4,
    width=512,
    num_heads=8,
    num_kv_heads=4,
    head_dim=64,
    ffw_width=2048,
    window=4096,
    query_scale=64**-0.5,
    remat="full",
)
HYPERPARAMETERS = grpo.GRPOHyperparameters(beta=0.08, clip=0.2, temperature=1.0)
CASES = {"short": (2, 1024, 256, 4, 0.85), "long": (1, 2048, 256, 16, 0.75)}
"""B, prompt, completion, G, share of the promise aimed at."""
ROWS = (1, 2, 4)
"""Micro-batches of the repeated side, in completions."""

FLAGS = flags.FlagValues()
REPEATS = flags.DEFINE_integer("repeats", 3, "Interleaved pairs of steps.", lower_bound=1, flag_values=FLAGS)
ONLY = flags.DEFINE_list("cases", list(CASES), f"Which of {', '.join(CASES)}.", flag_values=FLAGS)


def arithmetic(config: models.ModelConfig, prompt: int, completion: int, group: int) -> tuple[float, float]:
    """Operations of a forward pass over one group: (prompt repeated, trunk shared)."""
    heads = config.num_heads * config.head_dim
    weights = config.width * (2 * heads + 2 * config.num_kv_heads * config.head_dim + 3 * config.ffw_width)
    logits = 2 * config.width * config.vocab_size * completion * group

    def cost(tokens, pairs):
        return config.num_layers * (2 * weights * tokens + 4 * heads * pairs) + logits

    whole = prompt + completion
    own = group * (completion * prompt + completion**2 / 2)
    repeated = cost(group * whole, group * whole**2 / 2)
    return repeated, cost(prompt + group * completion, prompt**2 / 2 + own)


def make_batch(params, batch: int, prompt: int, completion: int, group: int) -> grpo.GRPOBatch:
    """What an update learns from: full lengths, old and reference policies near the policy, so that few ratios are clipped."""
    rng = np.random.default_rng(0)
    groups = Groups(
        trunk_tokens=rng.integers(0, MODEL.vocab_size, (batch, prompt - 1), np.int32),
        trunk_lengths=np.full(batch, prompt - 1, np.int32),
        inputs=np.repeat(rng.integers(0, MODEL.vocab_size, (batch, 1, completion + 1), np.int32), group, 1),
        lengths=np.full((batch, group), completion, np.int32),
    )
    groups.inputs[:, :, 1:] = rng.integers(0, MODEL.vocab_size, (batch, group, completion))
    layout = sharding.make_layout()
    whole = Batch(layout.split(groups), [buckets.whole(groups)])
    policy = np.asarray(grpo.make_reference(layout, params, MODEL)(params, whole, 1.0))
    near = [policy + 0.1 * rng.standard_normal(policy.shape, np.float32) for _ in range(2)]
    return grpo.GRPOBatch(groups, group_rewards.advantages(rng.integers(0, 2, (batch, group))), *near, policy)


def repeat_prompts(batch: grpo.GRPOBatch) -> grpo.GRPOBatch:
    """The same update with one completion per trunk."""
    groups, G = batch.groups, batch.groups.lengths.shape[1]
    apart = Groups(
        trunk_tokens=np.repeat(groups.trunk_tokens, G, 0),
        trunk_lengths=np.repeat(groups.trunk_lengths, G, 0),
        inputs=groups.inputs.reshape(-1, 1, groups.inputs.shape[-1]),
        lengths=groups.lengths.reshape(-1, 1),
    )
    rest = {name: x.reshape(-1, 1, *x.shape[2:]) for name, x in vars(batch).items() if name != "groups"}
    return grpo.GRPOBatch(apart, **rest)


class Side:
    """One way to compute the update."""

    def __init__(self, params, batch: grpo.GRPOBatch, micro_batches: int):
        optimizer = optax.adam(1e-6)
        params = jax.tree.map(np.array, params)
        layout, state = sharding.make_layout(), train_state.TrainState(params, optimizer.init(params))
        self._state = jax.device_put(state, layout.state(state))
        self._batches = [Batch(layout.split(batch), [buckets.whole(batch.groups)] * micro_batches)]
        self._step = grpo.make_step(layout, state, MODEL, optimizer)
        # The results take over the memory of arguments; the CPU's own figure of the peak leaves temporaries out.
        self.peak = max(map(_held, self._step.lower(self._state, self._batches, HYPERPARAMETERS))) / 2**20

    def seconds(self) -> np.ndarray:
        """Of one step: [wall, CPU of all threads]."""
        start = np.array([time.perf_counter(), time.process_time()])
        self._state, _, _ = jax.block_until_ready(self._step(self._state, self._batches, HYPERPARAMETERS))
        return np.array([time.perf_counter(), time.process_time()]) - start

    def gradients(self, params):
        """(gradients, loss) of the same batch."""
        gradients, metrics, _ = self._step.gradients(params, self._batches, HYPERPARAMETERS)
        return gradients, compute(metrics)["loss"]


def _held(part: Part) -> int:
    """Bytes that are held while a program of an update runs."""
    memory = part.program.compile().memory_analysis()
    return part.beside + memory.argument_size_in_bytes + memory.temp_size_in_bytes


def compare(name: str, params) -> None:
    """Prints one case."""
    batch_size, prompt, completion, group, target = CASES[name]
    print(f"\nprompt {prompt}, completion {completion}, group {group}, {batch_size} prompts")
    batch = make_batch(params, batch_size, prompt, completion, group)
    apart = repeat_prompts(batch)
    shared = Side(params, batch, 1)
    tried = []
    for rows in (r for r in ROWS if r <= batch_size * group):
        side = Side(params, apart, batch_size * group // rows)
        wall, cpu = side.seconds()
        tried.append((cpu, rows, side))
        print(f"  repeated, {rows} at a time: wall {wall:.2f} s, CPU {cpu:.2f} s, peak {side.peak:.0f} MiB", flush=True)
    _, rows, repeated = min(tried, key=lambda t: t[0])
    (ours, our_loss), (theirs, their_loss) = shared.gradients(params), repeated.gradients(params)
    gaps = jax.tree.map(lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b)), ours, theirs)
    gap, loss_gap = max(jax.tree.leaves(gaps)), abs(our_loss / their_loss - 1)
    print(f"  loss {our_loss:.7f}, relative difference {loss_gap:.1e}; gradients: worst leaf {gap:.1e} (both at most 1e-5)")
    if max(gap, loss_gap) > 1e-5:
        raise SystemExit("the two steps are not the same")
    shared.seconds()
    pairs = np.array([(repeated.seconds(), shared.seconds()) for _ in range(REPEATS.value)])
    promise = np.divide(*arithmetic(MODEL, prompt, completion, group))
    print(f"  promise {promise:.2f} x, target {target:.0%} of it; repeated with {rows} at a time")
    for clock, name in enumerate(("wall", "CPU")):
        slow, fast = np.median(pairs[:, :, clock], axis=0)
        ratios = pairs[:, 0, clock] / pairs[:, 1, clock]
        each, middle = ", ".join(f"{x:.2f}" for x in ratios), np.median(ratios)
        print(f"  {name}: repeated {slow:.2f} s, shared {fast:.2f} s, ratio {middle:.2f} ({each}): {middle / promise:.0%}")
    print(f"  peak memory: repeated {repeated.peak:.0f} MiB, shared {shared.peak:.0f} MiB", flush=True)


def main(_) -> None:
    """Runs the chosen cases."""
    if unknown := set(ONLY.value) - set(CASES):
        raise InputError(f"--cases: {min(unknown)!r} is none of {', '.join(CASES)}")
    sharding.use_devices(MeshConfig(cpu_devices=1))
    params = jax.jit(models.init, static_argnums=0)(MODEL, jax.random.key(0))
    for name in ONLY.value:
        compare(name, params)


if __name__ == "__main__":
    cli.run(main, FLAGS)
