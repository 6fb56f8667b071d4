"""Compiles every program of an experiment for a TPU slice that need not be there, and says what each would take.

    python -m spct_jax.plan --config=experiments/gemma2_2b.py --topology=v5e:4x4 [--json=FILE] [--programs=grpo,decode]
    python -m spct_jax.plan --config=experiments/gemma2_2b.py --topology=v5e:4x4 --search
    python -m spct_jax.plan --config=experiments/gemma2_2b.py --fit=v5e:64

Needs the TPU compiler, `pip install -e '.[plan]'`, and no TPU. Times are lower bounds (the busiest resource at its published
peak), not predictions. `--config.mesh.slices=N` plans N slices of the topology.
"""

import pathlib
import sys

import jax
import tqdm
from absl import flags

from spct_jax import cli
from spct_jax.config import Config, check_positions, validate
from spct_jax.errors import InputError
from spct_jax.planning import programs, report, search
from spct_jax.runtime import hardware, slices
from spct_jax.runtime.hardware import GIB, Chip
from spct_jax.runtime.slices import Slice
from spct_jax.storage import files

COMPILED_CANDIDATES = 3

FLAGS = flags.FlagValues()
TOPOLOGY = flags.DEFINE_string("topology", None, "Slice, such as v5p:4x4x4, v5e:4x4, v6e:4x4, tpu7x:2x2x1.", flag_values=FLAGS)
FIT = flags.DEFINE_string(
    "fit", None, "Instead: which slices of a chip fit, up to so many chips, such as v5p:64.", flag_values=FLAGS
)
JSON = flags.DEFINE_string("json", "", "File to write the plan to, as JSON.", flag_values=FLAGS)
PROGRAMS = flags.DEFINE_list("programs", [], "Only these programs.", flag_values=FLAGS)
SEARCH = flags.DEFINE_bool(
    "search", False, "Rank meshes and micro-batches instead, and compile the best three.", flag_values=FLAGS
)
CACHE = flags.DEFINE_string("cache", "~/.cache/spct_jax/plan", "Where compiled programs are kept, as text.", flag_values=FLAGS)


def plan(
    config: Config, topology: str, cache: pathlib.Path, only: list[str] | None = None, while_fits: bool = False
) -> dict[str, dict]:
    """Figures of every program, or of those named; see `planning.report.measure`.

    Args:
      config: the experiment.
      topology: the slice.
      cache: where compiled programs are kept.
      only: names of programs; all if it is empty.
      while_fits: stop after the first program that does not fit.

    Raises:
      InputError: the topology, a program's name or the experiment's mesh is wrong.
    """
    chip, devices = hardware.parse_topology(topology), hardware.slice_devices(topology, config.mesh.slices)
    planned = programs.programs(config, devices)
    unknown = [name for name in only or () if name not in planned]
    if unknown:
        raise InputError(f"--programs: no program {unknown[0]!r}; there are {', '.join(planned)}")
    bar = tqdm.tqdm([name for name in planned if not only or name in only], unit="program")
    results = {}
    for name in bar:
        bar.set_description(f"compiling {name}")
        results[name] = report.measure(planned[name], topology, devices, chip, cache)
        if while_fits and not results[name]["fits"]:
            break
    return results


def fit(config: Config, chosen: list[Slice], cache: pathlib.Path, only: list[str] | None = None, say=print) -> None:
    """Says of each slice whether all programs fit on it, how tightly, and how long a step of RL takes at least."""
    for one in chosen:
        count = config.mesh.slices
        where = slices.describe(one, count)
        try:
            results = plan(config, one.name, cache, only, while_fits=True)
        except InputError as error:
            say(f"{where}: cannot be used: {error}")
            continue
        name, most = max(results.items(), key=lambda item: item[1]["peak"] + item[1]["beside"])
        memory = f"{(most['peak'] + most['beside']) / GIB:.2f} of {most['limit'] / GIB:.2f} GiB in {name}"
        if not all(result["fits"] for result in results.values()):
            say(f"{where}: does not fit: {memory}")
            continue
        seconds = report.step(config, results).get("seconds", 0.0)
        time = f"; a step of RL takes at least {seconds:.1f} s, {seconds * count * one.chips:.0f} chip-seconds"
        say(f"{where}: fits, at most {memory}" + time * bool(seconds))


def suggest(config: Config, program: str, topology: str, cache: pathlib.Path, say=print) -> None:
    """Tries what could make a program fit, in order, until one does."""
    devices = hardware.slice_devices(topology, config.mesh.slices)
    for change, changed in search.remedies(config, program, len(devices)):
        result = plan(changed, topology, cache, [program])[program]
        over = (result["peak"] + result["beside"] - result["limit"]) / GIB
        say(f"{program} with {change}: " + ("fits" if result["fits"] else f"still {over:.2f} GiB too much"))
        if result["fits"]:
            return
    say(f"{program}: nothing in the configuration makes it fit; take a larger slice")


def rank(config: Config, topology: str, chip: Chip, cache: pathlib.Path, say=print) -> None:
    """Prints meshes and micro-batches for the GRPO update by the analytic model and compiles the best few."""
    devices = hardware.slice_devices(topology, config.mesh.slices)
    found = search.candidates(config, chip, len(devices))
    if not found:
        raise InputError(f"--search: no mesh of {topology} holds this experiment by the analytic model")
    for number, candidate in enumerate(found[:10]):
        line = f"tensor {candidate.tensor:2} accumulate {candidate.accumulate:3}: about {candidate.memory / GIB:.1f} GiB, "
        line += f"{candidate.seconds:.2f} s"
        if number < COMPILED_CANDIDATES:
            result = plan(search.with_candidate(config, candidate), topology, cache, ["grpo"])["grpo"]
            total = (result["peak"] + result["beside"]) / GIB
            time = f", at least {result['lower_bound']:.2f} s by {result['bound']}" if "bound" in result else ""
            line += f"; compiled: {total:.1f} GiB{time}, {'fits' if result['fits'] else 'does not fit'}"
        say(line)


def main(_) -> None:
    """Entry of `python -m spct_jax.plan`."""
    config, topology = FLAGS.config, TOPOLOGY.value
    validate(config)
    check_positions(config, config.model)
    if JSON.value and not pathlib.Path(JSON.value).absolute().parent.is_dir():
        raise InputError(f"--json={JSON.value}: not in a directory")
    if JSON.value:
        files.check_unused(JSON.value, [named.partition(":")[0] for named in cli.experiments(sys.argv)], "--json")
    if bool(topology) == bool(FIT.value):
        raise InputError("give one of --topology=SLICE and --fit=CHIP:N")
    chosen = slices.at_most(FIT.value) if FIT.value else [slices.parse(topology)]
    chip, cache = hardware.parse_topology(chosen[0].name), pathlib.Path(CACHE.value).expanduser()
    hardware.prepare(chip)
    jax.config.update("jax_platforms", "cpu")
    if FIT.value:
        fit(config, chosen, cache, PROGRAMS.value)
        return
    if SEARCH.value:
        rank(config, topology, chip, cache)
        return
    results = plan(config, topology, cache, PROGRAMS.value)
    chips = len(hardware.slice_devices(topology, config.mesh.slices)) // chip.devices_per_chip
    if JSON.value:
        files.write(JSON.value, report.as_json(config, topology, chips, results))
    print(report.tables(config, topology, chips, chip, results))
    for name, result in results.items():
        if not result["fits"]:
            suggest(config, name, topology, cache)


if __name__ == "__main__":
    cli.run(main, FLAGS, with_config=True)
