"""The page on sampling: tables and a figure from what `bench_sampling.py` measured."""

import matplotlib
from machine_limits import limit, visible
from matplotlib.figure import Figure
from rival_samplers import RIVALS
from sampler_comparison import COMPLETION, MOST, PAIRS, WAYS, model_config

SAMPLES = (1, 8, 32)
"""Samples k of a table's columns."""
ORDERS = 4
"""Prompts where there are several."""
COLOURS = {"ours": "#0072B2", "repeated": "#009E73", "tunix": "#D55E00", "transformers": "#CC79A7"}


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
            + [f"{other['ratio']:.1f}{'*' * ('earlier' in other)}" if "ratio" in other else other["note"] for other in others]
            + [f"{prefill['fraction']:.0%}", f"{most['decode']['fraction']:.0%}"]
            + [f"{most['seconds'] / single['seconds']:.2f}", f"{roof[0] / roof[1]:.2f}"]
            + [f"{most['seconds'] / (prefill['seconds'] + most['decode']['bound']['seconds']):.2f}"]
        )
    return _table(heads, rows)


def time_table(results: dict) -> str:
    """Every shape: times, and what the bounds consist of."""
    heads = ["prompt", "orders", "k", "new", "seconds", "tokens/s", "prefill, s", "of bound", "decode, s", "of bound"]
    rows = []
    for length, found in results["lengths"].items():
        for row in found["rows"]:
            prefill, decode = found["prefill"][str(row["orders"])], row["decode"]
            rows.append(
                [f"{int(length):,}", str(row["orders"]), str(row["samples"]), str(row["new_tokens"])]
                + [f"{row['seconds']:.3f}", f"{row['samples'] * row['new_tokens'] / row['seconds']:,.0f}"]
                + [f"{prefill['seconds']:.3f}", f"{prefill['fraction']:.0%}"]
                + [f"{decode['seconds']:.3f}", f"{decode['fraction']:.0%}", limit(prefill["bound"]), limit(decode["bound"])]
            )
    return _table([*heads, "prefill's bound", "decode's bound"], rows)


def memory_table(results: dict) -> str:
    """Peak memory by k, what one more branch adds, and what it would with a trunk of its own."""
    config = model_config()
    entry = 8 * config.num_kv_heads * config.head_dim / 1e6
    heads = ["prompt tokens", *(f"k = {k}, MB" for k in SAMPLES), "a branch adds, MB", "its own keys and values", "a trunk's"]
    rows = []
    for length, found in results["lengths"].items():
        known = {k: row["memory"] / 1e6 for k in SAMPLES if (row := _row(found, 1, k, COMPLETION))}
        low, high = sorted(known)[-2:]
        trunk = sum(int(visible(config, kind, int(length) - 2)) for kind in config.layer_kinds)
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
    heads += ["bandwidth, GB/s", "tanh, G/s", "exp, G/s", "others' load, cores"]
    rows = []
    for length, found in results["lengths"].items():
        rates = found["rates"]
        products = [rates.get(f"matmul {count}") for count in (*few, int(length), ORDERS * int(length))]
        rows.append(
            [f"{int(length):,}", *(f"{rate / 1e9:.0f}" if rate else "-" for rate in products)]
            + [f"{rates['bandwidth'] / 1e9:.1f}", f"{rates['tanh'] / 1e9:.2f}", f"{rates['exp'] / 1e9:.2f}"]
            + [f"{found['other_load']:.2f}"]
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
        found = {int(p): f["against"].get(way, {}) for p, f in lengths.items()}
        measured = [(p, other["theirs"]) for p, other in found.items() if "theirs" in other and "earlier" not in other]
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

Written by `experiments/studies/bench_sampling.py`, whose docstring defines the model, and that of
`machine_limits.py` the bound; JAX {results["jax"]},
{results["cores"]} CPU cores, float32. "Of bound" is the bound's time over the measured one.
{rivals}

## Against other ways, {MOST} samples of {COMPLETION} tokens

Ratios are their time over ours, medians of {PAIRS} pairs that alternate in one run; * marks those of an earlier run of this
benchmark, on another machine and older code.

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
