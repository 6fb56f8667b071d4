"""What steps of planned experiments, and their schedule, take when prompts and completions are as long as real ones.

    python experiments/studies/real_lengths.py --plans=plans/gemma2_2b.json,..

Reads what `plan --json` wrote and needs the TPU compiler, `.[plan]`, to know the tile sizes of the slice; compiles nothing. A
program at the lengths of `BUCKETS` is scaled from the planned one, at the limits, by the operations of `models.flops`: its
arithmetic, its bytes moved and the compiler's estimate. Bytes over links are taken whole, since most are gathered weights,
which no length changes. Draws are not scaled: engines are as large as the limits ask, and take the steps that lengths of a
quarter of the limit are expected to take. Prefills count prompts at their limit.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import plan_page
from absl import flags

from spct_jax import cli
from spct_jax.config import Config
from spct_jax.models import flops
from spct_jax.reporting import markdown
from spct_jax.runtime import hardware
from spct_jax.sampling import engine_size
from spct_jax.training import context

FLAGS = flags.FlagValues()
PLANS = flags.DEFINE_list("plans", None, "Files that `plan --json` wrote.", required=True, flag_values=FLAGS)

BUCKETS = {"reference": (872, 306), "grpo": (872, 306), "sft": (872, 275), "meta_rm": (872, 290)}
"""Slots of a prompt and of a completion: buckets that most micro-batches of hh_rlhf take, with the default template."""


def share(config: Config, program: str) -> float:
    """Operations of a program at its bucket, over those at the limits. RFT counts as rows of one completion."""
    model, data = config.model, config.data
    group = {"sft": 1, "meta_rm": 3}.get(program, config.rl.group_size)
    prompt, completion = BUCKETS[program]

    def operations(trunk: int, time: int) -> float:
        if program == "reference":
            return flops.forward(model, 1, group, trunk, time)
        return flops.update(model, 1, group, trunk, time, logits=program != "meta_rm")

    return operations(prompt - 1, completion) / operations(data.max_prompt - 1, data.max_completion)


def times(config: Config, plan: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """(by rooflines, by the estimate where that is longer) seconds of a step of every stage and of the parts of RL's."""
    devices = hardware.slice_devices(plan["topology"], config.mesh.slices)
    programs = plan["programs"]
    with context.make_layouts(config, devices)[0].constraints():  # what is counted depends on the platform
        shares = {name: share(config, name) if name in BUCKETS else 1.0 for name in programs}
    both = {}
    for name, found in programs.items():
        scaled = {r: s if r in ("links", "network") else shares[name] * s for r, s in found["seconds"].items()}
        bound = max(scaled.values())
        both[name] = (bound, max(bound, shares[name] * found["estimate"]["seconds"]))
    rl, slots = config.rl, programs["decode"]["tokens"]
    prefills = rl.batch_size * (config.data.max_prompt - 1) / programs["prefill"]["tokens"]
    steps = engine_size.steps_of_a_draw(slots, config.data.max_completion, rl.batch_size * rl.group_size)
    counted = {"reshard": 1, "preamble": 1, "prefill": prefills, "decode": steps}
    rollout = tuple(sum(count * both[name][i] for name, count in counted.items() if name in both) for i in (0, 1))
    parts = {"rollout": rollout, "reference": both["reference"], "update": both["grpo"]}
    step = tuple(sum(part[i] for part in parts.values()) for i in (0, 1))
    return parts | {"a step of RL": step, "a step of RFT": both["sft"], "a step of the meta RM": both["meta_rm"]}


def table(paths: list[pathlib.Path]) -> str:
    """In Markdown."""
    rows: dict[str, list[str]] = {}
    for path in paths:
        config, plan = plan_page.read(path)
        found = times(config, plan)
        hours = [
            sum(
                plan["chips"] * getattr(config, stage).steps * found[f"a step of {name}"][i] / 3600
                for stage, name in (("rft", "RFT"), ("rl", "RL"), ("meta_rm", "the meta RM"))
            )
            for i in (0, 1)
        ]
        for name, (bound, expected) in found.items():
            rows.setdefault(name, []).append(f"{bound:.1f} / {expected:.1f}")
        rows.setdefault("chip-hours of the schedule", []).append(f"{hours[0]:,.0f} / {hours[1]:,.0f}")
    header = ["seconds, by rooflines / by the estimate", *(plan_page.title(path) for path in paths)]
    return markdown.table(header, [[name, *cells] for name, cells in rows.items()])


def main(_) -> None:
    """Prints the table."""
    paths = [*map(pathlib.Path, PLANS.value)]
    hardware.prepare(hardware.parse_topology(plan_page.read(paths[0])[1]["topology"]))
    jax.config.update("jax_platforms", "cpu")
    print(table(paths))


if __name__ == "__main__":
    cli.run(main, FLAGS)
