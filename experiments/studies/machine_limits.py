"""What this machine can do, measured, and the least time that a pass through the model can take on it.

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
"""

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spct_jax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What one pass through the model cannot do without."""

    rows: int
    flops: float
    bytes: float
    tanh: float
    exp: float


def _layer_weights(config: ModelConfig) -> tuple[int, int]:
    """Numbers of weights of one layer: of the projections to keys and values, and of all."""
    heads = config.num_heads * config.head_dim
    keys = 2 * config.width * config.num_kv_heads * config.head_dim
    return keys, keys + 2 * config.width * heads + 3 * config.width * config.ffw_width


def visible(config: ModelConfig, kind: str, position: np.ndarray) -> np.ndarray:
    """How many keys a token at that position sees in a layer of that kind, its own included."""
    seen = np.asarray(position) + 1
    return np.minimum(seen, config.window) if kind == "local" else seen


def prefill_work(config: ModelConfig, trunk: int, orders: int) -> Work:
    """Keys and values of `orders` trunks: all layers but the last, and of the last the keys and values."""
    keys, weights = _layer_weights(config)
    whole = config.num_layers - 1
    pairs = sum(int(visible(config, kind, np.arange(trunk)).sum()) for kind in config.layer_kinds[:whole])
    scores = orders * config.num_heads * pairs
    tokens = orders * trunk
    multiplied = whole * weights + keys
    kept = sum(int(visible(config, kind, trunk - 1)) for kind in config.layer_kinds)
    return Work(
        rows=tokens + orders,  # A whole bucket: products of odd sizes are slower.
        flops=2 * tokens * multiplied + 4 * config.head_dim * scores,
        bytes=4 * (multiplied + tokens * config.width + orders * kept * 2 * config.num_kv_heads * config.head_dim),
        tanh=scores * bool(config.attn_softcap) + tokens * config.ffw_width * whole,
        exp=scores,
    )


def decode_work(config: ModelConfig, trunk: int, orders: int, samples: int, step: int) -> Work:
    """One step of `samples` branches in all, evenly on `orders` trunks; `step` tokens of each were read before."""
    _, weights = _layer_weights(config)
    multiplied = config.num_layers * weights + config.vocab_size * config.width
    seen = np.array([int(visible(config, kind, trunk + step)) for kind in config.layer_kinds])
    own = np.minimum(seen, step + 1)
    scores = samples * config.num_heads * int(seen.sum())
    keys_read = orders * int((seen - own).sum()) + samples * int(own.sum())
    return Work(
        rows=samples,
        flops=2 * samples * multiplied + 4 * config.head_dim * scores,
        bytes=4 * (multiplied + keys_read * 2 * config.num_kv_heads * config.head_dim),
        tanh=scores * bool(config.attn_softcap)
        + samples * (config.ffw_width * config.num_layers + config.vocab_size * bool(config.final_softcap)),
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


def available_memory() -> int:
    """Bytes this machine could still give."""
    fields = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


class CpuTime:
    """How many cores other processes used since this was made."""

    def __init__(self):
        self._start = self._now()

    def _now(self):
        ticks = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle, own = ticks[3] + ticks[4], os.times()
        return time.monotonic(), (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK") - own.user - own.system

    def others(self) -> float:
        """The mean of it, at least 0."""
        (then, used), (now, use) = self._start, self._now()
        return max((use - used) / (now - then), 0.0)
