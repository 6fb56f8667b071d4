"""One check of this package on a GPU: its numbers against references, its speed against this card's limits and transformers.

    python experiments/studies/gpu_check.py --output=gpu_check.json              # ten minutes at most on one card
    python experiments/studies/gpu_check.py --output=tiny.json --tiny            # the same code on a small model, on a CPU

Each phase is a process of its own, so that one that fails or is cut off costs the others nothing, and memory is free again:

    numerics  the fixtures: logits and greedy tokens against those of transformers in float32, at both precisions of products;
              log-probabilities that are drawn, scored here and scored on the CPU
    speed     a random Gemma-2 2B in bfloat16: trunks of 1,024, 2,048 and 4,096 tokens, one at a time; 256 tokens of 32
              branches of one prompt of 2,048 tokens, and of 16 branches of each of 8
    rival     the first of these, drawn by transformers, and gradients with prompts repeated
    update    GRPO's update of 4 groups of 8 completions of 256 tokens, prompts of 2,048, Adam in float32

Limits are measured in the same process: a product of two bfloat16 matrices of 8,192, and reading and copying 2 GiB. The least
time of a program is its arithmetic (`models.flops`) at the one rate or its bytes at the other, whichever is longer. The bytes
of a decode step are the parameters once, each trunk's keys and values once, and those of all branches' own tokens. Times are
medians of repeats, one at a time, without compilation, which is given apart; that of decoding is the whole less that of the
trunks.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import gpu_rival
import jax
import jax.numpy as jnp
import numpy as np
import optax
from machine_limits import seconds_of

from spct_jax import models, sampling, sharding
from spct_jax.checkpoints import train_state
from spct_jax.data import batches
from spct_jax.models import flops, sizes
from spct_jax.sharding import logical
from spct_jax.training import buckets, group_rewards, grpo
from spct_jax.training.micro_batches import Batch

FIXTURES = pathlib.Path(__file__).parents[2] / "tests" / "fixtures"
SECONDS = {"numerics": 120.0, "speed": 240.0, "rival": 120.0, "update": 180.0}
"""Of the phases, at most."""
REPEATS = 3


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: the model, and lengths in tokens."""

    model: models.ModelConfig
    trunks: tuple[int, ...] = (1024, 2048, 4096)
    prompt: int = 2048
    completion: int = 256
    branches: tuple[tuple[int, int], ...] = ((1, 32), (8, 16))
    """(prompts, branches of each)."""
    groups: int = 4
    group_size: int = 8
    product: int = 8192
    """Rows and columns of the matrices whose product is timed."""


def make_case(tiny: bool) -> Case:
    """Gemma-2 2B in bfloat16, or a model of its kind that a CPU runs in seconds."""
    full = dataclasses.replace(sizes.get("gemma2_2b"), dtype="bfloat16", remat="full")
    if not tiny:
        return Case(full)
    small = {"vocab_size": 512, "num_layers": 2, "width": 64, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16}
    model = dataclasses.replace(full, **small, ffw_width=128, window=32, query_scale=0.25)
    return Case(model, (16, 32), 32, 8, ((1, 4), (2, 2)), groups=2, group_size=2, product=256)


class Found:
    """What a phase has found so far, on disk after every addition."""

    def __init__(self, path: pathlib.Path):
        self._path, self.values = path, {"device": jax.devices()[0].device_kind, "jax": jax.__version__}

    def add(self, name: str, value: Any) -> None:
        """Writes a value and says it."""
        self.values[name] = value
        self._path.write_text(json.dumps(self.values))
        print(f"{name}: {value}", file=sys.stderr, flush=True)


def median_seconds(run: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Of calls of what has been compiled."""
    return float(np.median([seconds_of(run) for _ in range(repeats)]))


def timed(runs: dict[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, dict[str, float]]:
    """{"seconds", the median of one at a time; "compile_seconds", by which the first calls, in threads beside each other, took
    longer} by name.
    """
    with futures.ThreadPoolExecutor() as pool:
        first = dict(zip(runs, pool.map(seconds_of, runs.values()), strict=True))
    found = {}
    for name, run in runs.items():
        seconds = median_seconds(run, repeats)
        found[name] = {"seconds": seconds, "compile_seconds": max(first[name] - seconds, 0.0)}
    return found


def peak_gb() -> float | None:
    """The most memory of the device that was in use so far, where it tells."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 1e9 if "peak_bytes_in_use" in stats else None


def numerics(found: Found, _: Case) -> None:
    """Both fixtures, in float32 and in bfloat16."""
    for name in ("gemma2_tiny", "gemma3_tiny"):
        params, stored = models.load_hf(FIXTURES / name)
        model = dataclasses.replace(stored, dtype="float32")
        params = jax.tree.map(lambda x: x.astype(np.float32), params)
        reference = dict(np.load(FIXTURES / name / "reference.npz"))
        for precision in ("default", "highest"):
            with jax.default_matmul_precision(precision):
                found.add(f"{name}, {precision}", _against_reference(params, model, reference))
        prompts = reference["ids"].tolist()
        with jax.default_matmul_precision("highest"):
            found.add(f"{name}, drawn and scored", _drawn_and_scored(params, model, prompts))
        half = dataclasses.replace(model, dtype="bfloat16")
        found.add(f"{name}, drawn and scored in bfloat16", _drawn_and_scored(params, half, prompts))


def _against_reference(params: Any, model: models.ModelConfig, reference: dict[str, np.ndarray]) -> dict[str, float]:
    ids, prompt = reference["ids"].astype(np.int32), 12
    logits = np.asarray(jax.jit(models.logits, static_argnums=1)(params, model, ids))
    drawn = sampling.generate(
        params,
        model,
        ids[:, :prompt].tolist(),
        jax.random.key(0),
        num_samples=1,
        max_new_tokens=ids.shape[1] - prompt,
        temperature=0,
        stop_ids=(),
    )
    gap = logits - reference["logits"]
    return {
        "logits, largest difference": float(np.abs(gap).max()),
        "logits, relative norm": float(np.linalg.norm(gap) / np.linalg.norm(reference["logits"])),
        "greedy tokens alike": float((np.asarray(drawn.tokens)[:, 0] == reference["greedy"][:, prompt:]).mean()),
    }


def _drawn_and_scored(params: Any, model: models.ModelConfig, prompts: list[list[int]]) -> dict[str, float]:
    """Largest differences of log-probabilities of the same tokens: as drawn, as scored here, as scored on the CPU."""
    drawn = sampling.generate(params, model, prompts, jax.random.key(1), num_samples=16, max_new_tokens=24, stop_ids=())
    tokens = np.asarray(drawn.tokens)
    trunk_tokens, lengths, last = batches.pack_prompts(prompts, max(map(len, prompts)))
    first = np.broadcast_to(last[:, None, None], (*tokens.shape[:2], 1))
    inputs = np.concatenate([first, tokens[:, :, :-1]], axis=2).astype(np.int32)

    @jax.jit
    def score(params, trunk_tokens, lengths, inputs, tokens):
        return models.token_logprobs(params, model, models.Prompts(trunk_tokens, lengths), inputs, tokens)[0]

    given = params, trunk_tokens, lengths, inputs, tokens
    here, there = np.asarray(score(*given)), np.asarray(score(*jax.device_put(given, jax.devices("cpu")[0])))
    sampled = np.asarray(drawn.logprobs)
    gaps = {"drawn, scored here": sampled - here, "scored here, on the CPU": here - there}
    return {name: float(np.abs(gap).max()) for name, gap in gaps.items()}


def limits(size: int) -> dict[str, float]:
    """Measured rates: operations a second of bfloat16 products, bytes a second of memory."""
    a, b = (jax.random.normal(jax.random.key(i), (size, size), jnp.bfloat16) for i in range(2))
    product = functools.partial(jax.jit(jnp.matmul), a, b)
    x = jax.random.normal(jax.random.key(2), (16 * size * size,), jnp.bfloat16)
    read = functools.partial(jax.jit(lambda x: jnp.sum(x, dtype=jnp.float32)), x)
    copy = functools.partial(jax.jit(lambda x: x * 2), x)
    times = timed({"product": product, "read": read, "copy": copy}, 9)
    seconds = {name: time["seconds"] for name, time in times.items()}
    return {
        "flops": 2 * size**3 / seconds["product"],
        "read": x.nbytes / seconds["read"],
        "copied": 2 * x.nbytes / seconds["copy"],
        "bandwidth": max(x.nbytes / seconds["read"], 2 * x.nbytes / seconds["copy"]),
    }


def speed(found: Found, case: Case) -> None:
    """Trunks and decoding."""
    rates, model, T = limits(case.product), case.model, case.completion
    found.add("limits", rates)
    params = jax.jit(lambda key: logical.cast(models.init(model, key), model.dtype))(jax.random.key(0))
    prefill = jax.jit(models.prefill, static_argnums=1)
    shapes = dict.fromkeys([*((rows, case.prompt) for rows, _ in case.branches), *((1, slots) for slots in case.trunks)])

    def trunks(rows: int, slots: int) -> Callable[[], Any]:
        tokens = np.random.default_rng(0).integers(3, model.vocab_size, (rows, slots), np.int32)
        return functools.partial(prefill, params, model, *jax.device_put((tokens, np.full(rows, slots, np.int32))))

    def draw(rows: int, branches: int) -> Callable[[], Any]:
        prompts = np.random.default_rng(1).integers(3, model.vocab_size, (rows, case.prompt + 1)).tolist()
        chosen = {"num_samples": branches, "max_new_tokens": T, "stop_ids": ()}
        return lambda: sampling.generate(params, model, prompts, jax.random.key(0), **chosen).tokens

    runs = {f"trunks {rows} x {slots}": trunks(rows, slots) for rows, slots in shapes}
    times = timed(runs | {f"decode {rows} x {branches}": draw(rows, branches) for rows, branches in case.branches})
    for rows, slots in shapes:
        time = times[f"trunks {rows} x {slots}"]
        least = flops.prefill(model, rows, slots) / rates["flops"]
        rate = {"tokens_per_second": rows * slots / time["seconds"], "of_bound": least / time["seconds"]}
        found.add(f"trunks {rows} x {slots}", time | rate)
    for rows, branches in case.branches:
        name, before = f"decode {rows} x {branches}", times[f"trunks {rows} x {case.prompt}"]["seconds"]
        step = (times[name]["seconds"] - before) / T
        moved, done = decode_work(model, sum(x.nbytes for x in jax.tree.leaves(params)), rows, branches, case.prompt, T)
        measured = {
            "ms_per_token": 1e3 * step,
            "tokens_per_second": rows * branches / step,
            "tokens_per_second_with_trunks": rows * branches * T / times[name]["seconds"],
            "gb_per_token": moved / 1e9,
            "of_bound": max(moved / rates["bandwidth"], done / rates["flops"]) / step,
        }
        found.add(name, times[name] | measured)
    found.add("peak_gb", peak_gb())


def decode_work(
    model: models.ModelConfig, parameters: float, rows: int, branches: int, trunk: int, completion: int
) -> tuple[float, float]:
    """(bytes, operations) that one token of all branches cannot do without, in the mean over a completion.

    `parameters` are bytes, all of which are read.
    """
    bytes_of_token = 2 * model.num_kv_heads * model.head_dim * jnp.dtype(model.dtype).itemsize
    written = (completion + 1) / 2
    slots = 0.0
    for kind in model.layer_kinds:
        window = model.window_of(kind) or trunk + completion
        slots += rows * (min(trunk, window) + branches * min(written, window))
    return parameters + slots * bytes_of_token, flops.decode(model, rows * branches, trunk, round(written))


def update(found: Found, case: Case) -> None:
    """GRPO's update, in a micro-batch for each group."""
    rates, model = limits(case.product), case.model
    found.add("limits", rates)
    layout, optimizer = sharding.make_layout(), optax.adam(1e-6)
    params = jax.jit(models.init, static_argnums=0)(model, jax.random.key(0))
    state = train_state.TrainState(params, jax.jit(optimizer.init)(params))
    state = jax.device_put(state, layout.state(state))
    del params
    batch = _groups(case)
    step = grpo.make_step(layout, state, model, optimizer)
    work = [Batch(layout.split(batch), [buckets.whole(batch.groups)] * case.groups)]
    hyperparameters = grpo.GRPOHyperparameters(beta=0.08, clip=0.2, temperature=1.0)
    seconds = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        state, _, policy = jax.block_until_ready(step(state, work, hyperparameters))
        seconds.append(time.perf_counter() - start)
    median = float(np.median(seconds[1:]))
    shape = case.groups, case.group_size, case.prompt - 1, case.completion
    done, needed = flops.update(model, *shape), 3 * flops.forward(model, *shape)
    tokens = case.groups * (case.prompt + case.group_size * case.completion)
    result = {
        "seconds": median,
        "compile_seconds": seconds[0] - median,
        "tokens_per_second": tokens / median,
        "of_bound": done / median / rates["flops"],
        "of_bound, what is computed again left out": needed / median / rates["flops"],
        "finite": all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((policy, state.params))),
        "peak_gb": peak_gb(),
    }
    found.add("update", result)


def _groups(case: Case) -> grpo.GRPOBatch:
    """Random tokens of full lengths; all policies the same, and uniform."""
    rng, B, G, T = np.random.default_rng(0), case.groups, case.group_size, case.completion
    groups = batches.Groups(
        trunk_tokens=rng.integers(3, case.model.vocab_size, (B, case.prompt - 1), np.int32),
        trunk_lengths=np.full(B, case.prompt - 1, np.int32),
        inputs=rng.integers(3, case.model.vocab_size, (B, G, T + 1), np.int32),
        lengths=np.full((B, G), T, np.int32),
    )
    uniform = np.full((B, G, T), -np.log(case.model.vocab_size), np.float32)
    rewards = rng.permuted(np.tile([-1.0, 1.0], (B, G))[:, :G], axis=1)
    return grpo.GRPOBatch(groups, group_rewards.advantages(rewards), uniform, uniform, uniform)


def rival(found: Found, case: Case) -> None:
    """Transformers on the same sizes and lengths."""
    (rows, branches), shape = case.branches[0], (case.group_size * case.groups, case.prompt, case.completion)
    assert rows == 1
    for name, value in gpu_rival.measure(case.model, case.prompt, case.completion, branches, shape):
        found.add(name, value)


def in_process(phase: str, path: pathlib.Path, tiny: bool, seconds: float) -> dict[str, Any]:
    """What a phase finds, in a process of its own, until its time is over."""
    command = [sys.executable, __file__, f"--phase={phase}", f"--output={path}", *["--tiny"] * tiny]
    # By default JAX takes three quarters of the memory at once, which transformers could not then have.
    memory = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if phase == "rival" else {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}
    start = time.perf_counter()
    try:
        status = subprocess.run(command, timeout=seconds, check=False, env=os.environ | memory).returncode
        ended = {} if status == 0 else {"error": f"exit status {status}"}
    except subprocess.TimeoutExpired:
        ended = {"error": f"cut off after {seconds:.0f} s"}
    values = json.loads(path.read_text()) if path.exists() else {}
    path.unlink(missing_ok=True)
    return values | ended | {"phase_seconds": time.perf_counter() - start}


def main() -> int:
    """Runs the phases one after the other; the exit status is 1 if one of them did not end well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="The JSON file.")
    parser.add_argument("--budget", type=float, default=600.0, help="Seconds for all phases.")
    parser.add_argument("--phases", default=",".join(SECONDS), help="Of %(default)s.")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--phase", choices=SECONDS, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.phase:
        run = {"numerics": numerics, "speed": speed, "rival": rival, "update": update}[flags.phase]
        run(Found(flags.output), make_case(flags.tiny))
        return 0
    end, results = time.perf_counter() + flags.budget, {}
    for phase in flags.phases.split(","):
        seconds = min(end - time.perf_counter(), SECONDS[phase])
        part = flags.output.with_suffix(f".{phase}")
        results[phase] = in_process(phase, part, flags.tiny, seconds) if seconds > 5 else {"error": "no time left"}
        flags.output.write_text(json.dumps(results, indent=1) + "\n")
    return int(any("error" in result for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
