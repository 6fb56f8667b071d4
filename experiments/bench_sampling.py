"""The cost of k completions of one prompt, beside this machine's bound and beside other ways to draw them.

    python experiments/bench_sampling.py --output=docs/results [--tunix_python=PATH] [--transformers_python=PATH]

The model is a Gemma-2 in small: 4 layers (local, global, local, global; window 1,024), width 512, 8 query and 4 key heads
of 64, feed-forward 2,048, vocabulary 4,096, soft caps 50 and 30, float32, random weights. Nothing stops a completion, so
all have full length. Writes bench_sampling.json, bench_sampling.png and sampling.md into the output directory; prompt
lengths measured in an earlier run with the same output stay in the report, so that a long benchmark can be run in parts.

The bound of a piece of work is

    max(arithmetic / matmul rate, bytes / bandwidth) + tanh / tanh rate + exp / exp rate

with all rates measured in the same run, between the measurements they are held against:

- Arithmetic is what the results need: keys a query can see only (the causal half, the window of local layers), and of
  the prompt's last layer only keys and values, nothing further being read. The matmul rate is that of 512 x 2,048
  weights at the number of rows at hand (the trunk's length in prefill, the samples of all orders in decode), the best of
  three forms: x w, its transpose, and x in blocks of 16 rows.
- Bytes: the weights once per pass, each trunk's keys and values once per decode step however many branches read them,
  and each branch's own. Bandwidth is that of reading an array of 256 MB.
- tanh: soft-capped scores, gelu, final soft cap. exp: softmax of attention, and of the drawn token. Their rates are
  those of one fused pass over an array that fits in cache.

In decode, the bound is the sum over steps. "Prefill" is `models.prefill` jitted alone; "decode" is the whole of
`generate` less the prefill of the same round. Ways that are compared alternate in one run, and ratios are medians of the
ratios of such pairs. Peak memory is XLA's own account of the compiled program: arguments, outputs and temporaries.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jax import lax
from matplotlib.figure import Figure
from rival_samplers import CHECK_PROMPT, RIVALS

from spct_jax import models
from spct_jax.models import sizes
from spct_jax.sampling import generate

LENGTHS = (128, 512, 2048, 4096)
SAMPLES = (1, 8, 32)
COMPLETION, LONG_COMPLETION = 64, 256
ORDERS = 4
ROUNDS, PAIRS = 5, 3
MOST = max(SAMPLES)
START = time.perf_counter()
WAYS = {"repeated": "own model, prompt repeated", "tunix": "Tunix", "transformers": "transformers"}
COLOURS = {"ours": "#0072B2", "repeated": "#009E73", "tunix": "#D55E00", "transformers": "#CC79A7"}


def model_config() -> sizes.ModelConfig:
    """The model of the benchmark."""
    return dataclasses.replace(
        sizes.toy(4096),
        width=512,
        num_heads=8,
        num_kv_heads=4,
        head_dim=64,
        ffw_width=2048,
        window=1024,
        rope_base_local=10_000.0,
        rope_base_global=10_000.0,
        query_scale=64**-0.5,
    )


def make_prompts(config: sizes.ModelConfig, length: int, number: int) -> list[list[int]]:
    """Random prompts that start with BOS."""
    tokens = np.random.default_rng(length).integers(3, config.vocab_size, (number, length))
    tokens[:, 0] = 2
    return tokens.tolist()


# --- the bound ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What one pass through the model cannot do without."""

    rows: int
    flops: float
    bytes: float
    tanh: float
    exp: float


def _layer_weights(config: sizes.ModelConfig) -> tuple[int, int]:
    """Numbers of weights of one layer: of the projections to keys and values, and of all."""
    heads = config.num_heads * config.head_dim
    keys = 2 * config.width * config.num_kv_heads * config.head_dim
    return keys, keys + 2 * config.width * heads + 3 * config.width * config.ffw_width


def _visible(config: sizes.ModelConfig, kind: str, position: np.ndarray) -> np.ndarray:
    seen = np.asarray(position) + 1
    return np.minimum(seen, config.window) if kind == "local" else seen


def prefill_work(config: sizes.ModelConfig, trunk: int, orders: int) -> Work:
    """Keys and values of `orders` trunks: all layers but the last, and of the last the keys and values."""
    keys, weights = _layer_weights(config)
    whole = config.num_layers - 1
    pairs = sum(int(_visible(config, kind, np.arange(trunk)).sum()) for kind in config.layer_kinds[:whole])
    scores = orders * config.num_heads * pairs
    tokens = orders * trunk
    multiplied = whole * weights + keys
    kept = sum(int(_visible(config, kind, trunk - 1)) for kind in config.layer_kinds)
    return Work(
        rows=tokens + orders,  # A whole bucket: products of odd sizes are slower.
        flops=2 * tokens * multiplied + 4 * config.head_dim * scores,
        bytes=4 * (multiplied + tokens * config.width + orders * kept * 2 * config.num_kv_heads * config.head_dim),
        tanh=scores + tokens * config.ffw_width * whole,
        exp=scores,
    )


def decode_work(config: sizes.ModelConfig, trunk: int, orders: int, samples: int, step: int) -> Work:
    """One step of `samples` branches in all, evenly on `orders` trunks; `step` tokens of each were read before."""
    _, weights = _layer_weights(config)
    multiplied = config.num_layers * weights + config.vocab_size * config.width
    seen = np.array([int(_visible(config, kind, trunk + step)) for kind in config.layer_kinds])
    own = np.minimum(seen, step + 1)
    scores = samples * config.num_heads * int(seen.sum())
    keys_read = orders * int((seen - own).sum()) + samples * int(own.sum())
    return Work(
        rows=samples,
        flops=2 * samples * multiplied + 4 * config.head_dim * scores,
        bytes=4 * (multiplied + keys_read * 2 * config.num_kv_heads * config.head_dim),
        tanh=scores + samples * (config.ffw_width * config.num_layers + config.vocab_size),
        exp=scores + samples * config.vocab_size,
    )


def bound(works: list[Work], rates: dict[str, float]) -> dict[str, float]:
    """Seconds the works take one after the other at `rates`: the total and its parts."""
    parts = {"matmul": 0.0, "memory": 0.0, "tanh": 0.0, "exp": 0.0}
    for work in works:
        arithmetic, memory = work.flops / rates[f"matmul {work.rows}"], work.bytes / rates["bandwidth"]
        parts["matmul" if arithmetic >= memory else "memory"] += max(arithmetic, memory)
        parts["tanh"] += work.tanh / rates["tanh"]
        parts["exp"] += work.exp / rates["exp"]
    return {"seconds": sum(parts.values())} | parts


def limit(bounds: dict[str, float]) -> str:
    """The parts of a bound in words, the largest first, below a twentieth left out."""
    names = {"matmul": "matrix products", "memory": "bandwidth", "tanh": "tanh", "exp": "exp"}
    shares = {names[part]: bounds[part] / bounds["seconds"] for part in names}
    told = sorted((share, name) for name, share in shares.items() if share >= 0.05)[::-1]
    return ", ".join(f"{name} {share:.0%}" for share, name in told)


# --- measuring ---------------------------------------------------------------------------------------------------------


def seconds_of(run: Callable) -> float:
    """Wall-clock seconds of one call, its result computed."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def probes(rows: set[int]) -> dict[str, tuple[float, list[Callable]]]:
    """What measures each rate: the amount of work, and calls that do it, of which the fastest counts."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape, np.float32) * shape[0] ** -0.5)

    def repeated(body, times):
        return jax.jit(lambda x, *others: lax.fori_loop(0, times, lambda _, x: body(x, *others), x))

    def in_blocks(x, a, b):
        return jnp.concatenate([(block @ a) @ b for block in jnp.split(x, x.shape[0] // 16)])

    up, down = normal(512, 2048), normal(2048, 512)
    up_t, down_t = jnp.asarray(np.ascontiguousarray(up.T)), jnp.asarray(np.ascontiguousarray(down.T))
    found = {}
    for count in sorted(rows):
        # About 4 GFLOP a call: long beside the start of a call, short beside a change of the machine's mood.
        times = max(1, 1024 // count)
        x = normal(count, 512)
        forms = [
            functools.partial(repeated(lambda x, a, b: (x @ a) @ b, times), x, up, down),
            functools.partial(repeated(lambda x, a, b: b @ (a @ x), times), x.T, up_t, down_t),
        ]
        if 16 < count <= 128 and not count % 16:
            forms.append(functools.partial(repeated(in_blocks, times), x, up, down))
        found[f"matmul {count}"] = (4.0 * 512 * 2048 * count * times, forms)
    cached = normal(1 << 18)
    for name, function in {"tanh": jnp.tanh, "exp": lambda x: jnp.exp(-x)}.items():
        found[name] = (64.0 * cached.size, [functools.partial(repeated(function, 64), cached)])
    large = normal(1 << 16, 1024)
    reads = [functools.partial(jax.jit(jnp.sum), large), functools.partial(jax.jit(jnp.matmul), large, normal(1024))]
    found["bandwidth"] = (float(large.nbytes), reads)
    return found


def sampler(params, config, prompts: list[list[int]], samples: int, new_tokens: int) -> Callable:
    """A call of `generate` that draws `samples` for each prompt."""
    key = jax.random.key(0)
    return lambda: generate(params, config, prompts, key, num_samples=samples, max_new_tokens=new_tokens, stop_ids=()).tokens


def peak_memory(params, config, prompts: list[list[int]], samples: int, new_tokens: int) -> int:
    """Bytes of the compiled program of one such call."""

    def draw(params, key):
        return generate(params, config, prompts, key, num_samples=samples, max_new_tokens=new_tokens, stop_ids=())

    account = jax.jit(draw).lower(params, jax.random.key(0)).compile().memory_analysis()
    return account.argument_size_in_bytes + account.output_size_in_bytes + account.temp_size_in_bytes


def available_memory() -> int:
    """Bytes this machine could still give."""
    fields = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def measure(params, config, length: int, quick: bool) -> dict:
    """Rates, times and memory at one prompt length, taken in alternation."""
    trunk = length - 1
    one, several = make_prompts(config, length, 1), make_prompts(config, length, ORDERS)
    samples = (1, MOST) if quick else SAMPLES
    tokens = np.zeros((1, 1 << (trunk - 1).bit_length()), np.int32)
    tokens[0, -trunk:] = one[0][:-1]
    prefill = jax.jit(models.prefill, static_argnums=1)
    runs = {
        f"prefill {n}": functools.partial(prefill, params, config, np.repeat(tokens, n, 0), np.full(n, trunk))
        for n in (1, ORDERS)
    }
    shapes = {(1, k, COMPLETION) for k in samples} | {(ORDERS, k, COMPLETION) for k in samples if k >= ORDERS}
    shapes |= set() if quick else {(1, MOST, LONG_COMPLETION)}
    shapes = sorted(shapes)
    for n, k, T in shapes:
        runs[f"{n} {k} {T}"] = sampler(params, config, one if n == 1 else several, k // n, T)
    rated = probes({k for _, k, _ in shapes} | {length, ORDERS * length})
    for run in [*runs.values(), *(form for _, forms in rated.values() for form in forms)]:
        jax.block_until_ready(run())

    times, rates = {name: [] for name in runs}, {name: [] for name in rated}
    busy = _CpuTime()
    for number in range(2 if quick else ROUNDS):
        progress(f"{length} tokens: round {number + 1}")
        for name, run in runs.items():
            times[name].append(seconds_of(run))
        for name, (amount, forms) in rated.items():
            rates[name].append([amount / seconds_of(form) for form in forms])
    others = busy.others()
    rates = {name: float(np.max(np.median(found, axis=0))) for name, found in rates.items()}

    def bounded(seconds, works):
        bounds = bound(works, rates)
        return {"seconds": seconds, "bound": bounds, "fraction": bounds["seconds"] / seconds}

    found = {"rates": rates, "other_load": others, "rounds": len(times["prefill 1"]), "rows": []}
    found["prefill"] = {
        str(n): bounded(float(np.median(times[f"prefill {n}"])), [prefill_work(config, trunk, n)]) for n in (1, ORDERS)
    }
    for n, k, T in shapes:
        progress(f"{length} tokens: memory of k = {k}, {n} order(s), {T} new tokens")
        total = np.array(times[f"{n} {k} {T}"])
        decode = float(np.median(total - times[f"prefill {n}"]))
        row = {"orders": n, "samples": k, "new_tokens": T, "seconds": float(np.median(total))}
        row["decode"] = bounded(decode, [decode_work(config, trunk, n, k, t) for t in range(T)])
        row["memory"] = peak_memory(params, config, one if n == 1 else several, k // n, T)
        found["rows"].append(row)
    return found


class _CpuTime:
    """How many cores other processes used since this was made."""

    def __init__(self):
        self._start = self._now()

    def _now(self):
        ticks = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle, own = ticks[3] + ticks[4], os.times()
        return time.monotonic(), (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK") - own.user - own.system

    def others(self) -> float:
        (then, used), (now, use) = self._start, self._now()
        return max((use - used) / (now - then), 0.0)


# --- the others --------------------------------------------------------------------------------------------------------


class Rival:
    """A sampler of another library in its own process."""

    def __init__(self, name: str, python: str, checkpoint: pathlib.Path):
        script = pathlib.Path(__file__).with_name("rival_samplers.py")
        command = [python, str(script), name, str(checkpoint)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def introduce(self, expected: np.ndarray) -> dict:
        """Its version, and how far its logits after `CHECK_PROMPT` are from the expected ones."""
        hello = self._answer()
        difference = float(np.abs(np.array(hello["logits"]) - expected).max())
        if difference > 1e-3:
            raise RuntimeError(f"another model: its logits differ by {difference:.1g}")
        return {"version": hello["version"], "logits_differ_by": difference}

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"ended with status {self._process.wait()}")
        return json.loads(line)

    def seconds(self, prompt: list[int], samples: int, new_tokens: int) -> float:
        """Seconds it took to draw the samples, by its own clock."""
        request = {"prompt": prompt, "samples": samples, "new_tokens": new_tokens}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def installed(name: str, python: str) -> bool:
    """Whether that interpreter can import the library."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    return subprocess.run([python, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


def against(params, config, length: int, way: str, python: str, checkpoint: pathlib.Path) -> dict:
    """Pairs of ours and another way for 32 samples of 64 tokens; or {"note"} that says why there are none."""
    (prompt,) = make_prompts(config, length, 1)
    ours = sampler(params, config, [prompt], MOST, COMPLETION)
    note, rival = {}, None
    if way == "repeated":
        needed = peak_memory(params, config, [prompt] * MOST, 1, COMPLETION)
    else:
        # Both hold the scores of a whole layer, and while they are capped, masked and normalised, once more.
        needed = 2 * 4 * MOST * config.num_heads * length * (length + COMPLETION)
        if not installed(way, python):
            return {"note": "not installed"}
    if needed > 0.8 * available_memory():
        return {"note": f"needs {needed / 1e9:.0f} GB"}
    try:
        if way == "repeated":
            theirs = functools.partial(seconds_of, sampler(params, config, [prompt] * MOST, 1, COMPLETION))
        else:
            expected = np.asarray(models.logits(params, config, np.array([CHECK_PROMPT]))[0, -1])
            rival = Rival(way, python, checkpoint)
            note = rival.introduce(expected)
            theirs = functools.partial(rival.seconds, prompt, MOST, COMPLETION)
        seconds_of(ours), theirs()
        pairs = []
        for number in range(PAIRS):
            progress(f"{length} tokens: pair {number + 1} with {WAYS[way]}")
            pairs.append((seconds_of(ours), theirs()))
    except RuntimeError as error:
        return note | {"note": str(error)}
    finally:
        if rival:
            rival.close()
    mine, other = np.array(pairs).T
    medians = {"ours": float(np.median(mine)), "theirs": float(np.median(other)), "ratio": float(np.median(other / mine))}
    return note | medians | {"pairs": pairs}


# --- the report --------------------------------------------------------------------------------------------------------


def _table(heads: list[str], rows: list[list[str]]) -> str:
    marks = ["---"] + ["--:"] * (len(heads) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, marks, *rows])


def _row(found: dict, orders: int, samples: int, new_tokens: int) -> dict | None:
    wanted = (orders, samples, new_tokens)
    return next((row for row in found["rows"] if (row["orders"], row["samples"], row["new_tokens"]) == wanted), None)


def ratio_table(results: dict) -> str:
    """Ours against every other way, and against the bound."""
    heads = ["prompt tokens", "tokens/s", *(f"x {name}" for name in WAYS.values())]
    heads += ["prefill of bound", "decode of bound", "t(32)/t(1)", "its roofline", "total / (prefill + decode bound)"]
    rows = []
    for length, found in results["lengths"].items():
        most, single = _row(found, 1, MOST, COMPLETION), _row(found, 1, 1, COMPLETION)
        others = [found["against"].get(way, {"note": "-"}) for way in WAYS]
        prefill = found["prefill"]["1"]
        roof = [prefill["bound"]["seconds"] + row["decode"]["bound"]["seconds"] for row in (most, single)]
        rows.append(
            [f"{int(length):,}", f"{MOST * COMPLETION / most['seconds']:,.0f}"]
            + [f"{other['ratio']:.1f}" if "ratio" in other else other["note"] for other in others]
            + [f"{prefill['fraction']:.0%}", f"{most['decode']['fraction']:.0%}"]
            + [f"{most['seconds'] / single['seconds']:.2f}", f"{roof[0] / roof[1]:.2f}"]
            + [f"{most['seconds'] / (prefill['seconds'] + most['decode']['bound']['seconds']):.2f}"]
        )
    return _table(heads, rows)


def time_table(results: dict) -> str:
    """Every shape: times, memory and what the bound consists of."""
    heads = ["prompt", "orders", "k", "new", "seconds", "tokens/s", "prefill, s", "of bound", "decode, s", "of bound"]
    rows = []
    for length, found in results["lengths"].items():
        for row in found["rows"]:
            prefill, decode = found["prefill"][str(row["orders"])], row["decode"]
            rows.append(
                [f"{int(length):,}", str(row["orders"]), str(row["samples"]), str(row["new_tokens"])]
                + [f"{row['seconds']:.3f}", f"{row['samples'] * row['new_tokens'] / row['seconds']:,.0f}"]
                + [f"{prefill['seconds']:.3f}", f"{prefill['fraction']:.0%}"]
                + [f"{decode['seconds']:.3f}", f"{decode['fraction']:.0%}", limit(decode["bound"])]
            )
    return _table([*heads, "decode's bound"], rows)


def memory_table(results: dict) -> str:
    """Peak memory by k, what one more branch adds, and what it would with a trunk of its own."""
    config = model_config()
    entry = 8 * config.num_kv_heads * config.head_dim / 1e6
    heads = ["prompt tokens", *(f"k = {k}, MB" for k in SAMPLES), "a branch adds, MB", "its own keys and values", "a trunk's"]
    rows = []
    for length, found in results["lengths"].items():
        known = {k: row["memory"] / 1e6 for k in SAMPLES if (row := _row(found, 1, k, COMPLETION))}
        low, high = sorted(known)[-2:]
        trunk = sum(int(_visible(config, kind, int(length) - 2)) for kind in config.layer_kinds)
        rows.append(
            [f"{int(length):,}", *(f"{known[k]:,.0f}" if k in known else "-" for k in SAMPLES)]
            + [f"{(known[high] - known[low]) / (high - low):.2f}"]
            + [f"{entry * COMPLETION * config.num_layers:.2f}", f"{entry * trunk:.2f}"]
        )
    return _table(heads, rows)


def rate_table(results: dict) -> str:
    """The machine as it was found beside each prompt length."""
    few = sorted({k for found in results["lengths"].values() for k in (row["samples"] for row in found["rows"])})
    heads = ["prompt tokens", *(f"{k} rows" for k in few), "trunk's rows", f"{ORDERS} trunks'"]
    heads += ["bandwidth, GB/s", "tanh, G/s", "exp, G/s", "others' load, cores", "prefill's bound"]
    rows = []
    for length, found in results["lengths"].items():
        rates = found["rates"]
        products = [rates.get(f"matmul {count}") for count in (*few, int(length), ORDERS * int(length))]
        rows.append(
            [f"{int(length):,}", *(f"{rate / 1e9:.0f}" if rate else "-" for rate in products)]
            + [f"{rates['bandwidth'] / 1e9:.1f}", f"{rates['tanh'] / 1e9:.2f}", f"{rates['exp'] / 1e9:.2f}"]
            + [f"{found['other_load']:.2f}", limit(found["prefill"]["1"]["bound"])]
        )
    return _table(heads, rows)


def targets_table(results: dict) -> str:
    """What the kernel was to reach, and whether it did."""
    rows = []

    def add(claim, value, text, holds):
        rows.append([claim, "-" if value is None else text.format(value), "-" if value is None else "yes" if holds else "NO"])

    for length, least in ((512, 6), (2048, 30)):
        ratio = results["lengths"].get(str(length), {}).get("against", {}).get("tunix", {}).get("ratio")
        add(f"{length:,}: at least {least} x Tunix", ratio, "{:.1f} x", (ratio or 0) >= least)
    if found := results["lengths"].get("2048"):
        most = _row(found, 1, MOST, COMPLETION)
        prefill, decode = found["prefill"]["1"], most["decode"]
        over = most["seconds"] / (prefill["seconds"] + decode["bound"]["seconds"])
        add("2,048: total at most 1.5 x (own prefill + decode bound)", over, "{:.2f} x", over <= 1.5)
        add("2,048: prefill at least half of its bound", prefill["fraction"], "{:.0%}", prefill["fraction"] >= 0.5)
        add("2,048: decode at least half of its bound", decode["fraction"], "{:.0%}", decode["fraction"] >= 0.5)
    return _table(["32 samples of 64 tokens", "measured", "holds"], rows)


def figure(results: dict) -> Figure:
    """Throughput of every way, time against the bound, and memory by k."""
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
    style |= {"axes.titlelocation": "left", "axes.titleweight": "bold", "axes.titlesize": 10, "grid.color": "#E6E6E6"}
    with matplotlib.rc_context(style):
        drawn = Figure(figsize=(13, 4.2), layout="constrained")
        speed, time_axes, memory = drawn.subplots(1, 3, width_ratios=(1.1, 1.2, 1))
        _draw_speed(speed, results)
        _draw_bound(time_axes, results)
        _draw_memory(memory, results)
        return drawn


def _draw_speed(axes, results):
    lengths = results["lengths"]
    points = {"ours": [(int(p), MOST * COMPLETION / _row(f, 1, MOST, COMPLETION)["seconds"]) for p, f in lengths.items()]}
    for way in WAYS:
        measured = [(int(p), f["against"][way]["theirs"]) for p, f in lengths.items() if "theirs" in f["against"].get(way, {})]
        points[way] = [(p, MOST * COMPLETION / seconds) for p, seconds in measured]
    for name, line in points.items():
        if line:
            label = "spct_jax" if name == "ours" else WAYS[name]
            axes.plot(*zip(*line, strict=True), marker="o", markersize=5, linewidth=1.8, color=COLOURS[name], label=label)
    axes.set(
        xscale="log", yscale="log", xlabel="prompt tokens", ylabel="tokens/s", title=f"{MOST} samples of {COMPLETION} tokens"
    )
    ticks = [int(length) for length in lengths]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(frameon=False, fontsize=8, loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.16))
    axes.grid(axis="y")


def _draw_bound(axes, results):
    parts = {"matmul": "#0072B2", "memory": "#56B4E9", "tanh": "#E69F00", "exp": "#F0E442"}
    names = {"matmul": "bound: matrix products", "memory": "bound: bandwidth", "tanh": "bound: tanh", "exp": "bound: exp"}
    ticks, place = [], 0.0
    for length, found in results["lengths"].items():
        for label, piece in (("prefill", found["prefill"]["1"]), ("decode", _row(found, 1, MOST, COMPLETION)["decode"])):
            # The times themselves differ a hundredfold from bar to bar.
            bottom = 0.0
            for part, colour in parts.items():
                share = 100 * piece["bound"][part] / piece["seconds"]
                axes.bar(place, share, 0.8, bottom, color=colour, label=names[part] if not ticks else None)
                bottom += share
            axes.bar(place, max(100 - bottom, 0), 0.8, bottom, color="#EEEEEE", label="beyond it" if not ticks else None)
            axes.annotate(f"{bottom:.0f}", (place, bottom), (0, 2), textcoords="offset points", ha="center", fontweight="bold")
            ticks.append((place, f"{label}\n{int(length):,}"))
            place += 0.9
        place += 0.4
    axes.set_xticks(*zip(*ticks, strict=True), fontsize=7.5)
    axes.tick_params(axis="x", length=0)
    axes.set(ylim=(0, 112), ylabel="% of the measured time", title=f"The bound's share of the time, k = {MOST}")
    axes.set_yticks(range(0, 101, 25))
    axes.legend(frameon=False, fontsize=7.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _draw_memory(axes, results):
    shades = ["#9ECAE1", "#4292C6", "#2171B5", "#08306B"]
    for (length, found), colour in zip(results["lengths"].items(), shades[-len(results["lengths"]) :], strict=False):
        line = [(k, row["memory"] / 1e6) for k in SAMPLES if (row := _row(found, 1, k, COMPLETION))]
        axes.plot(*zip(*line, strict=True), marker="o", markersize=5, linewidth=1.8, color=colour)
        axes.annotate(f"{int(length):,}", line[-1], (6, 0), textcoords="offset points", va="center", color=colour)
    axes.set(xlabel="samples k", ylabel="MB", title="Peak memory, by prompt tokens", xlim=(0, MOST * 1.2))
    axes.set_xticks(SAMPLES)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")


def markdown(results: dict) -> str:
    """docs/results/sampling.md."""
    versions = {
        way: other for found in results["lengths"].values() for way, other in found["against"].items() if "version" in other
    }
    rivals = "".join(
        f"{WAYS[way]} is {RIVALS[way][0]} {other['version']}: it loads the same weights and gives the same logits"
        f" (to {other['logits_differ_by']:.0e}).\n"
        for way, other in sorted(versions.items(), reverse=True)
    )
    load = max(found["other_load"] for found in results["lengths"].values())
    disturbed = (
        f" Other work took up to {load:.2f} cores meanwhile: these are not figures of a quiet machine." if load > 0.1 else ""
    )
    rounds = min(found["rounds"] for found in results["lengths"].values())
    return f"""# Sampling: the cost of k completions

Written by `experiments/bench_sampling.py`, whose docstring defines the model and the bound; JAX {results["jax"]},
{results["cores"]} CPU cores, float32. "Of bound" is the bound's time over the measured one.
{rivals}

## Against other ways, {MOST} samples of {COMPLETION} tokens

Ratios are their time over ours, medians of {PAIRS} pairs that alternate in one run.

{ratio_table(results)}

![throughput, the bound, memory](bench_sampling.png)

## Targets

{targets_table(results)}

## Every shape

k samples in all, evenly on the orders: with {ORDERS} orders each of {ORDERS} prompts is a trunk of its own. Medians of
{rounds} rounds in alternation.

{time_table(results)}

## Memory

XLA's account of the compiled program: weights, outputs and temporaries. The trunk is held once: one more branch adds what
it holds itself, whatever the prompt's length, not a trunk.

{memory_table(results)}

## The machine, as measured beside

Matrix products in GFLOP/s by their number of rows.{disturbed}

{rate_table(results)}
"""


def progress(text: str) -> None:
    """One line, with the time since the start."""
    print(f"[{time.perf_counter() - START:6.0f} s] {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Measures, prints the table of ratios, writes the report; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/bench_sampling"))
    parser.add_argument("--quick", action="store_true", help="Two lengths, k 1 and 32, fewer rounds.")
    parser.add_argument("--lengths", help="Prompt lengths to measure; default: 128,512,2048,4096.")
    parser.add_argument("--against", default=",".join(WAYS), help="Ways to compare with, of: %(default)s; may be empty.")
    parser.add_argument("--only_against", action="store_true", help="Keep the times, rates and memory of an earlier run.")
    for way in RIVALS:
        parser.add_argument(f"--{way}_python", default=sys.executable, help=f"An interpreter that has {way}.")
    flags = parser.parse_args()
    lengths = [int(n) for n in flags.lengths.split(",")] if flags.lengths else LENGTHS[:2] if flags.quick else LENGTHS
    ways = [way for way in flags.against.split(",") if way]
    if unknown := set(ways) - set(WAYS):
        parser.error(f"--against takes {', '.join(WAYS)}, not {', '.join(sorted(unknown))}")

    flags.output.mkdir(parents=True, exist_ok=True)
    path = flags.output / "bench_sampling.json"
    results = json.loads(path.read_text()) if path.exists() else {"lengths": {}}
    results |= {"jax": jax.__version__, "cores": len(os.sched_getaffinity(0))}
    config = model_config()
    params = models.init(config, jax.random.key(0))

    def save():
        results["lengths"] = dict(sorted(results["lengths"].items(), key=lambda item: int(item[0])))
        path.write_text(json.dumps(results, indent=1))

    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = pathlib.Path(scratch) / "model"
        models.save_hf(checkpoint, params, config)
        for length in lengths:
            earlier = results["lengths"].get(str(length))
            if earlier is None or not flags.only_against:
                progress(f"{length} tokens: compiling")
                kept = earlier["against"] if earlier else {}
                results["lengths"][str(length)] = measure(params, config, length, flags.quick) | {"against": kept}
                save()
            for way in ways:
                python = getattr(flags, f"{way}_python", sys.executable)
                found = against(params, config, length, way, python, checkpoint)
                results["lengths"][str(length)]["against"][way] = found
                save()
    print(ratio_table(results))
    figure(results).savefig(flags.output / "bench_sampling.png", dpi=160, metadata={"Software": None})
    (flags.output / "sampling.md").write_text(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
