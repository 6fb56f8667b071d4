"""One page from plans that were made: a table over all experiments, and behind it each plan as it was printed.

    for name in gemma2_2b ..; do
      python -m spct_jax.plan --config=experiments/$name.py --topology=v5e:4x4 --json=plans/$name.json
    done
    python experiments/studies/plan_page.py --plans=plans/gemma2_2b.json,.. --code=COMMIT --output=docs/results/plans.md

A plan's file is named after its experiment, and must be of the experiment as it is now. Compiles nothing.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from spct_jax import cli
from spct_jax.config import Config
from spct_jax.errors import InputError
from spct_jax.planning import report
from spct_jax.reporting import markdown
from spct_jax.runtime import hardware
from spct_jax.runtime.hardware import GIB
from spct_jax.storage import files

FLAGS = flags.FlagValues()
PLANS = flags.DEFINE_list("plans", None, "Files that `plan --json` wrote.", required=True, flag_values=FLAGS)
CODE = flags.DEFINE_string("code", None, "Commit they were made on.", required=True, flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "The page, .md.", required=True, flag_values=FLAGS)

HEAD = """\
# The experiments, planned

Every program of every experiment, [compiled for its slice](../plan.md) without one, at {code}. What the columns mean, and how
far these times can be trusted, is said [there](../plan.md#what-the-figures-mean): the first of two times is what the busiest
resource needs at its published peak, the second what the compiler expects, which leaves out collectives. All prompts have
4,096 tokens and all completions 1,024; real ones are shorter, and [take less](speed.md#the-papers-schedule-at-real-lengths).
"""
HEADER = (
    "experiment",
    "slice",
    "most memory, GiB",
    "GRPO update, s",
    "decode a token, ms",
    "step of RL, s",
    "schedule, chip-hours",
)


def read(path: pathlib.Path) -> tuple[Config, dict[str, Any]]:
    """(the experiment, its plan).

    Raises:
      InputError: the plan is not of the experiment that its file is named after, or not of all programs.
    """
    plan, found = files.read_json(path), pathlib.Path("experiments") / f"{path.stem}.py"
    config = cli.load_config(str(found))
    if plan["config"] != json.loads(json.dumps(dataclasses.asdict(config))):
        raise InputError(f"{path}: not a plan of {found} as it is now")
    if not plan["step"]:
        raise InputError(f"{path}: not all programs were planned, or one does not fit")
    return config, plan


def title(path: pathlib.Path) -> str:
    """The name of a plan's model, from that of its file."""
    return f"Gemma-{path.stem.removeprefix('gemma').replace('_', ' ').upper()}"


def _both(result: Mapping[str, Any], unit: float, digits: int) -> str:
    """Roofline time and estimate."""
    return f"{unit * result['lower_bound']:.{digits}f} / {unit * result['estimate']['seconds']:.{digits}f}"


def _row(name: str, plan: Mapping[str, Any]) -> list[str]:
    programs, step = plan["programs"], plan["step"]
    most = max(programs.values(), key=lambda r: r["peak"] + r["beside"])
    bound, expected = (
        plan["chips"] * sum(step[f"{kind}{stage}_hours"] for stage in ("rft", "rl", "meta_rm")) for kind in ("", "estimated_")
    )
    return [
        name,
        plan["topology"],
        f"{(most['peak'] + most['beside']) / GIB:.1f} of {most['limit'] / GIB:.1f}",
        _both(programs["grpo"], 1, 1),
        _both(programs["decode"], 1e3, 1),
        f"{step['seconds']:.1f} / {step['estimated_seconds']:.1f}",
        f"{bound:,.0f} / {expected:,.0f}",
    ]


def page(paths: list[pathlib.Path], code: str) -> str:
    """The page, in Markdown."""
    rows, parts = [], []
    for path in paths:
        config, plan = read(path)
        rows.append(_row(title(path), plan))
        chip = hardware.parse_topology(plan["topology"])
        command = f"`python -m spct_jax.plan --config=experiments/{path.stem}.py --topology={plan['topology']}`"
        said = report.tables(config, plan["topology"], plan["chips"], chip, plan["programs"]).strip()
        parts += [f"## {title(path)}", command, said]
    return "\n\n".join([HEAD.format(code=code).strip(), markdown.table(HEADER, rows), *parts]) + "\n"


def main(_) -> None:
    """Writes the page."""
    files.write(OUTPUT.value, page([*map(pathlib.Path, PLANS.value)], CODE.value))


if __name__ == "__main__":
    cli.run(main, FLAGS)
