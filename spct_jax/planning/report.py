"""From a compiled program to figures, and from figures to the tables of a plan."""

import dataclasses
import gzip
import hashlib
import json
import pathlib
import re
import time
from typing import Any

import jax

from spct_jax.config import Config
from spct_jax.planning import hlo
from spct_jax.planning.programs import Planned
from spct_jax.runtime.hardware import GIB, Chip
from spct_jax.storage import files

LARGEST = 10
"""Kernels that are named for each program; the tables show the first `SHOWN`."""
SHOWN = 4


def measure(planned: Planned, topology: str, devices: list, chip: Chip, cache: pathlib.Path) -> dict[str, Any]:
    """Compiles a program's parts, or takes what the same parts gave before, and compares them with what the chip has.

    Returns:
      `fits`, `tokens` and `note` as planned, and in bytes per device `limit` and, of the part that needs most, `peak` and
      `beside` (what else is held while it runs); if the compiler could fit all parts, also `flops`, `flops_by_hand`, `bytes`,
      `collectives` and `sent` per device, `seconds`, the roofline time of each resource, and `estimate`, see `_estimate`.
    """
    compiled = [(_compiled(part.program, topology, len(devices), chip, cache), part) for part in planned.lower()]
    peak, beside = max(((found["peak"], planned.beside + part.beside) for found, part in compiled), key=sum)
    result = {"peak": peak, "beside": beside, "limit": chip.hbm, "tokens": planned.tokens, "note": planned.note}
    if not all(found["text"] for found, _ in compiled):
        return result | {"fits": False}
    cost = hlo.Cost()
    for found, part in compiled:
        cost.add(hlo.Module(found["text"]).cost(planned.steps), part.times)
    cost.flops += planned.kernels / len(devices)
    dcn = cost.collectives.get("send", (0, 0))[1]
    seconds = {
        "compute": cost.flops / chip.flops,
        "memory": cost.bytes / chip.hbm_bandwidth,
        "links": (cost.sent - dcn) / chip.ici_bandwidth,
        "network": dcn / chip.dcn_bandwidth,
    }
    return result | {
        "fits": peak + beside <= chip.hbm,
        "compile_seconds": sum(found["seconds"] for found, _ in compiled),
        "flops": cost.flops,
        "flops_by_hand": planned.flops / len(devices),
        "bytes": cost.bytes,
        "collectives": cost.collectives,
        "sent": cost.sent,
        "seconds": seconds,
        "bound": max(seconds, key=seconds.get),
        "lower_bound": max(seconds.values()),
        "estimate": _estimate(cost, planned.kernels / len(devices), chip),
    }


PALLAS = "Pallas kernels, by their operations at the chip's peak"


def _estimate(cost: hlo.Cost, pallas: float, chip: Chip) -> dict[str, Any]:
    """What the compiler expects a program to take.

    Returns:
      `seconds` of all kernels one after the other; of it, `pallas`, by formula, since the compiler knows nothing of these
      kernels; `copies`, seconds of the asynchronous copies at the memory's peak, which the kernels may hide or not; the number
      of `kernels`, and of those `unknown` to the compiler, which count no time; and the `largest` of them by name, with their
      count and seconds.
    """
    named = {name: (count, cycles / chip.clock) for name, (count, cycles) in cost.kernels.items()}
    if pallas:
        named[PALLAS] = (0.0, pallas / chip.flops)
    largest = sorted(named.items(), key=lambda item: -item[1][1])[:LARGEST]
    return {
        "seconds": sum(seconds for _, seconds in named.values()),
        "pallas": pallas / chip.flops,
        "copies": cost.copied / chip.hbm_bandwidth,
        "kernels": sum(count for count, _ in named.values()),
        "unknown": cost.unknown,
        "largest": [{"name": name, "count": count, "seconds": seconds} for name, (count, seconds) in largest],
    }


def _compiled(lowered: jax.stages.Lowered, topology: str, devices: int, chip: Chip, cache: pathlib.Path) -> dict[str, Any]:
    """What `_compile` returns, from the cache if it is there."""
    key = "\n".join((lowered.as_text(), topology, str(devices), jax.__version__, str(chip.environment)))
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()}.json.gz"
    if path.exists():
        return json.loads(gzip.decompress(path.read_bytes()))
    compiled = _compile(lowered)
    cache.mkdir(parents=True, exist_ok=True)
    files.write(path, gzip.compress(json.dumps(compiled).encode()))
    return compiled


def _compile(lowered: jax.stages.Lowered) -> dict[str, Any]:
    """Peak bytes per device, seconds of compilation, and the program's text, empty if it does not fit."""
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = re.search(r"(?:Used |temporaries \()([\d.]+)([GM])", str(error))
        if needed is None:
            raise
        unit = GIB if needed[2] == "G" else GIB >> 10
        peak, text = int(float(needed[1]) * unit), ""
    else:
        peak, text = compiled.memory_analysis().peak_memory_in_bytes, compiled.as_text()
    return {"peak": peak, "seconds": time.perf_counter() - start, "text": text}


def step(config: Config, results: dict[str, dict]) -> dict[str, float]:
    """Times of a step of RL and of all steps of the schedule, if no program overlapped another.

    Every program takes its roofline time; or, in what begins with `estimated_`, what the compiler expects if that is longer.
    Returns {} if a program that is needed is missing or does not fit.
    """
    wanted = ("reshard", "prefill", "decode", "reference", "grpo", "sft", "meta_rm")
    if any("lower_bound" not in results.get(name, {}) for name in wanted):
        return {}
    rl, time_ = config.rl, config.data.max_completion
    prompts = rl.batch_size * (config.data.max_prompt - 1) / results["prefill"]["tokens"]
    tokens = rl.batch_size * rl.group_size * time_
    decoded = tokens / results["decode"]["tokens"]

    def times(seconds: dict[str, float]) -> dict[str, float]:
        read = seconds.get("preamble", 0.0) + prompts * seconds["prefill"]
        rollout = seconds["reshard"] + read + decoded * seconds["decode"]
        scored = (1 + rl.rollout_lag) * seconds["reference"]  # by the policy that drew, too, where that is an older one
        step = rollout + scored + rl.updates_per_rollout * seconds["grpo"]
        return {
            "rollout_seconds": rollout,
            "seconds": step,
            "rl_hours": rl.steps * step / 3600,
            "rft_hours": config.rft.steps * seconds["sft"] / 3600,
            "meta_rm_hours": config.meta_rm.steps * seconds["meta_rm"] / 3600,
        }

    bounds = {name: result["lower_bound"] for name, result in results.items() if name in (*wanted, "preamble")}
    estimated = times({name: max(bound, results[name]["estimate"]["seconds"]) for name, bound in bounds.items()})
    return times(bounds) | {"completion_tokens": tokens} | {f"estimated_{name}": value for name, value in estimated.items()}


def tables(config: Config, topology: str, chips: int, chip: Chip, results: dict[str, dict]) -> str:
    """The plan as Markdown."""
    mesh, slots = config.mesh, results["decode"]["tokens"] if "decode" in results else config.rl.slots
    lines = [
        f"{topology}, {mesh.slices} slice{'s' * (mesh.slices > 1)} of {chips // mesh.slices} chips; strategy {mesh.strategy}, "
        f"tensor {mesh.tensor}, rollout {mesh.rollout}; remat {config.model.remat}, {config.model.time_chunk} "
        f"positions of logits at once; prompt {config.data.max_prompt}, "
        f"completion {config.data.max_completion}, group {config.rl.group_size}, {config.rl.batch_size} prompts a step, "
        f"drawn in {slots} slots, accumulate {config.rl.accumulate} (RL), {config.rft.accumulate} (RFT), "
        f"{config.meta_rm.accumulate} (meta RM).",
        "",
        f"| program | peak GiB of {chip.hbm / GIB:.2f} | beside | TFLOP | by hand | GB moved | GB sent | roofline ms "
        "| bound by | estimate ms | copies ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for name, r in results.items():
        memory = f"{r['peak'] / GIB:.2f} | {r['beside'] / GIB:.2f}"
        if "flops" not in r:
            lines.append(f"| {name} | {memory} | | | | | | **does not fit** | | |")
            continue
        hand = f"{r['flops'] / r['flops_by_hand']:.3f}" if r["flops_by_hand"] else ""
        label = f"{name} ({r['note']})" if r["note"] else name
        bound = r["bound"] if r["fits"] else f"**{(r['peak'] + r['beside'] - r['limit']) / GIB:.2f} GiB too much**"
        lines.append(
            f"| {label} | {memory} | {r['flops'] / 1e12:.3f} | {hand} | {r['bytes'] / 1e9:.1f} | {r['sent'] / 1e9:.2f} | "
            f"{1e3 * r['lower_bound']:.1f} | {bound} | {1e3 * r['estimate']['seconds']:.1f} | "
            f"{1e3 * r['estimate']['copies']:.1f} |"
        )
    lines += ["", "Collectives per device and execution, count and GB sent:", ""]
    for name, r in results.items():
        found = [f"{kind} {count:.10g} ({size / 1e9:.2f})" for kind, (count, size) in r.get("collectives", {}).items()]
        lines.append(f"- {name}: {', '.join(found) or 'none'}")
    lines += ["", "Largest kernels by the compiler's estimate, ms and count:", ""]
    for name, r in results.items():
        if "estimate" in r:
            shown = (f"{k['name']} {1e3 * k['seconds']:.1f} ({k['count']:,.0f})" for k in r["estimate"]["largest"][:SHOWN])
            unknown = f", {r['estimate']['unknown']:,.0f} of them without an estimate" if r["estimate"]["unknown"] else ""
            lines.append(f"- {name}: {', '.join(shown)}; {r['estimate']['kernels']:,.0f} kernels in all{unknown}")
    return "\n".join([*lines, *_schedule(config, chips, step(config, results))]) + "\n"


def _schedule(config: Config, chips: int, times: dict[str, float]) -> list[str]:
    """Lines on a step of RL and on the schedule; none where `step` returned nothing."""
    if not times:
        return []

    def hours(kind: str) -> str:
        parts = [chips * times[f"{kind}{name}_hours"] for name in ("rft", "rl", "meta_rm")]
        return f"{' + '.join(f'{part:.0f}' for part in parts)} = {sum(parts):.0f} chip-hours"

    rate = times["completion_tokens"] / times["seconds"] / chips
    return [
        "",
        f"A step of RL takes at least {times['seconds']:.1f} s, {times['rollout_seconds']:.1f} s of it the rollout: "
        f"at most {rate:.0f} completion tokens/s/chip. The schedule ({config.rft.steps} steps of RFT, "
        f"{config.rl.steps} of RL, {config.meta_rm.steps} of the meta RM) takes at least {hours('')}.",
        f"With the compiler's estimates where they are longer, a step takes {times['estimated_seconds']:.1f} s, "
        f"{times['estimated_rollout_seconds']:.1f} s of it the rollout, and the schedule {hours('estimated_')}.",
    ]


def as_json(config: Config, topology: str, chips: int, results: dict[str, dict]) -> str:
    """The plan as JSON, for other programs."""
    plan = {
        "topology": topology,
        "slices": config.mesh.slices,
        "chips": chips,
        "fits": all(r["fits"] for r in results.values()),
        "programs": results,
        "step": step(config, results),
        "config": dataclasses.asdict(config),
    }
    return json.dumps(plan, indent=2) + "\n"
