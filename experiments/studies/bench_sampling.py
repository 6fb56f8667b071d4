"""The cost of k completions of one prompt, beside this machine's bound and beside other ways to draw them.

    python experiments/studies/bench_sampling.py --output=docs/results [--tunix_python=PATH] [--transformers_python=PATH]
    python experiments/studies/bench_sampling.py --size=gemma3_270m --lengths=256,1024 --against= --output=DIR

The model is a Gemma-2 in small: 4 layers (local, global, local, global; window 1,024), width 512, 8 query and 4 key heads
of 64, feed-forward 2,048, vocabulary 4,096, soft caps 50 and 30, float32, random weights. Nothing stops a completion, so
all have full length. Writes bench_sampling.json, bench_sampling.png and sampling.md into the output directory; prompt
lengths measured in an earlier run with the same output stay in the report, so that a long benchmark can be run in parts, and
so do ratios to other ways. With `--size` it is a model of that size, also float32 with random weights; then only the tables
are printed and the measurements written.

What is measured stands beside the bound of `machine_limits.py`, whose rates are measured in the same run, between the
measurements they are held against; in decode, the bound is the sum over steps. "Prefill" is `models.prefill` jitted alone;
"decode" is the whole of `generate` less the prefill of the same round. Ways that are compared alternate in one run, and
ratios are medians of the ratios of such pairs. Peak memory is XLA's own account of the compiled program: arguments, outputs
and temporaries.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import sys
import tempfile

import jax
import numpy as np
from machine_limits import CpuTime, bound, decode_work, prefill_work, probes, seconds_of
from rival_samplers import RIVALS
from sampler_comparison import COMPLETION, MOST, WAYS, against, make_prompts, model_config, peak_memory, progress, sampler
from sampling_report import ORDERS, SAMPLES, figure, markdown, ratio_table, time_table

from spct_jax import models, sharding
from spct_jax.sharding.config import MeshConfig

LENGTHS = (128, 512, 2048, 4096)
LONG_COMPLETION = 256
ROUNDS = 5


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
    busy = CpuTime()
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
        row["memory"] = peak_memory(config, one if n == 1 else several, k // n, T)
        found["rows"].append(row)
    return found


def main() -> int:
    """Measures, prints the table of ratios, writes the report; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/bench_sampling"))
    parser.add_argument("--quick", action="store_true", help="Two lengths, k 1 and 32, fewer rounds.")
    parser.add_argument("--size", choices=sorted(models.SIZES), help="A model of this size, in place of the small one.")
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

    sharding.use_devices(MeshConfig(cpu_devices=1))
    flags.output.mkdir(parents=True, exist_ok=True)
    path = flags.output / "bench_sampling.json"
    results = json.loads(path.read_text()) if path.exists() else {"lengths": {}}
    results |= {"jax": jax.__version__, "cores": len(os.sched_getaffinity(0))}
    config = dataclasses.replace(models.get(flags.size), dtype="float32") if flags.size else model_config()
    params = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))

    def save():
        results["lengths"] = dict(sorted(results["lengths"].items(), key=lambda item: int(item[0])))
        path.write_text(json.dumps(results, indent=1))

    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = pathlib.Path(scratch) / "model"
        if ways:
            models.save_hf(checkpoint, params, config)
        for length in lengths:
            earlier = results["lengths"].get(str(length))
            if earlier is None or not flags.only_against:
                progress(f"{length} tokens: compiling")
                kept = {way: of_way | {"earlier": True} for way, of_way in earlier["against"].items()} if earlier else {}
                results["lengths"][str(length)] = measure(params, config, length, flags.quick) | {"against": kept}
                save()
            for way in ways:
                python = getattr(flags, f"{way}_python", sys.executable)
                found = against(params, config, length, way, python, checkpoint)
                results["lengths"][str(length)]["against"][way] = found
                save()
    print(ratio_table(results))
    if flags.size:
        print(time_table(results))
        return 0
    figure(results).savefig(flags.output / "bench_sampling.png", dpi=160, metadata={"Software": None})
    (flags.output / "sampling.md").write_text(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
