r"""SPCT and its baselines on a pretrained Gemma-3 270M and on what people preferred: from a model and data files to one page.

    python experiments/studies/gemma3_270m.py --model=gemma-3-270m --data=DATA --workdir=runs/gemma3_270m \
        --config=experiments/gemma3_270m.py:gpu

What: prepares the data (`human_data`), trains and evaluates the GRM and every baseline, each in a directory of its own, and
writes the report (`human_report`). Every command is printed before it runs and can be given by itself. Started again after it
was killed, it goes on where it was, and ends with bitwise the same parameters and verdicts.
Data: a folder with hh-rlhf/, pandalm/, prometheus/, llmbar/ and gsm8k/ as their authors publish them, and llama_factory/ for
general instructions; `human_data.SOURCES` names the files. They hold offensive text, and the report repeats some.
Hardware and time: those of the experiment's variants; without `--config` two CPU cores, for hours.

Any field can be overridden for all systems, as in --config.seed=1, except the paths of data and model. Settings are chosen with
--config.evaluation.split=development in another --workdir; `readings.jsonl` in the workdir says when the test was read.
"""

import datetime
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Sequence

import human_data
from absl import flags

from spct_jax import checkpoints, cli
from spct_jax.config import SYSTEMS, Config
from spct_jax.data.config import SOURCES
from spct_jax.errors import InputError
from spct_jax.storage import append_only, digests, files

HERE = pathlib.Path(__file__).parent
EXPERIMENT = HERE.parent / "gemma3_270m.py"
FULL = "grm"
"""What the directory of the GRM with its meta RM is called; the experiment without a system."""
DEFAULT = (FULL, "btrm", "pairrm", "llm_judge", "cloud")
DEMONSTRATIONS = {
    "llm_judge": "demonstrations_judge",
    "cloud": "demonstrations_cloud",
    "no_principles": "demonstrations_no_principles",
}
"""The demonstrations of the systems that have their own."""

MADE = {"likelihood": "after/likelihood.jsonl", "expected": "after/expected_greedy.jsonl"}
"""What a command writes when it ends; it is not run again where that is there. The others look for themselves."""

FLAGS = flags.FlagValues()
MODEL = flags.DEFINE_string("model", None, "Directory of the pretrained model.", required=True, flag_values=FLAGS)
DATA = flags.DEFINE_string("data", None, "Folder of all data.", required=True, flag_values=FLAGS)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of all runs; started again, it goes on.", required=True, flag_values=FLAGS
)
CHOSEN = flags.DEFINE_list("systems", list(DEFAULT), f"Which systems; known: {FULL}, {', '.join(SYSTEMS)}.", flag_values=FLAGS)
ONLY_PREPARE = flags.DEFINE_bool("only_prepare", False, "Write the data and print the commands; run none.", flag_values=FLAGS)


def variant(config: str, system: str) -> str:
    """The experiment `FILE.py[:MACHINE]` as a system."""
    if system == FULL:
        return config
    path, _, machine = config.partition(":")
    return f"{path}:{machine},{system}" if machine else f"{path}:{system}"


def fields(system: str, model: str, directory: pathlib.Path) -> list[str]:
    """The flags that name a system's files."""
    paths = {name: directory / f"{name}.jsonl" for name in SOURCES}
    paths["demonstrations"] = directory / f"{DEMONSTRATIONS.get(system, 'demonstrations')}.jsonl"
    return [f"--config.init_checkpoint={model}", *(f"--config.data.{name}={path}" for name, path in paths.items())]


def commands(
    config: str, overrides: Sequence[str], model: str, workdir: pathlib.Path, systems: Sequence[str]
) -> dict[str, list[str]]:
    """The commands in their order, by what they make."""
    data, python = workdir / "data", sys.executable
    found = {
        system: [python, "-m", "spct_jax.train", f"--config={variant(config, system)}", f"--workdir={workdir / system}"]
        + [*fields(system, model, data), *overrides]
        for system in systems
    }
    studies = {
        "likelihood": ["text_baselines.py", f"--checkpoint={model}", f"--input={data / 'test.jsonl'}"]
        + [f"--output={workdir / 'after' / 'likelihood.jsonl'}"],
        "expected": ["expected_verdicts.py", f"--run={workdir / FULL}", f"--input={data / 'test.jsonl'}"]
        + [f"--output={workdir / 'after'}", "--k=0"],
        "report": ["human_report.py", f"--run={workdir}", f"--output={workdir / 'gemma3_270m.md'}"]
        + [f"--sample={workdir / 'verdicts.jsonl'}"],
    }
    if FULL not in systems:
        del studies["expected"]
    return found | {name: [python, str(HERE / command[0]), *command[1:]] for name, command in studies.items()}


def prepare(folder: str, model: str, workdir: pathlib.Path, config: Config, longest_response: int) -> None:
    """Writes the data once, and says what was read.

    Raises:
        InputError: a file of the data is missing, or `workdir` holds data of other settings.
    """
    directory = workdir / "data"
    limits = human_data.Limits(config.data.max_prompt, longest_response, config.data.max_completion)
    wanted = digests.of_json([vars(limits), vars(config.prompt), config.seed, str(pathlib.Path(folder).resolve())])
    stamp = directory / "made_from.txt"
    if stamp.exists() and stamp.read_text() != wanted:
        raise InputError(f"{directory}: holds data of other settings; choose another --workdir")
    if not stamp.exists():
        tokenizer = checkpoints.read_tokenizer(model)
        human_data.prepare(pathlib.Path(folder), directory, config.prompt, tokenizer, limits, config.seed)
        files.write(stamp, wanted)
    counts = files.read_json(directory / "counts.json")
    for name, of_source in counts["sources"].items():
        print(f"{name}: {of_source['rows']:,} rows, {of_source['comparisons']:,} comparisons, left out {of_source['left out']}")
    print(f"dropped: {counts['dropped']}")
    for name, sizes in counts["splits"].items():
        print(f"{name}: {sizes}")


def note_reading(workdir: pathlib.Path, system: str, arguments: Sequence[str]) -> None:
    """Adds to the log that the test was read with these settings."""
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with append_only.Appended(workdir / "readings.jsonl") as log:
        log.write({"when": when, "what": f"{system}, evaluated on the test: {shlex.join(arguments)}"})


def run(command: Sequence[str]) -> None:
    """Prints a command and runs it; ends as it ended if it failed."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    if status := subprocess.run(command).returncode:
        sys.exit(status if status > 0 else 128 - status)


def main(named: str, overrides: Sequence[str]) -> None:
    """Runs everything for the experiment `FILE.py[:MACHINE]` with these overrides of its fields."""
    if unknown := [name for name in CHOSEN.value if name != FULL and name not in SYSTEMS]:
        raise InputError(f"--systems: unknown {unknown[0]!r}; known: {FULL}, {', '.join(SYSTEMS)}")
    own = ("--config.init_checkpoint", *(f"--config.data.{name}=" for name in SOURCES))
    if given := [argument for argument in overrides if argument.startswith(own)]:
        raise InputError(f"{given[0]}: this study names the model and the data itself")
    workdir, model = pathlib.Path(WORKDIR.value).absolute(), str(pathlib.Path(MODEL.value).absolute())
    config = cli.read_config([f"--config={named}", *overrides])
    scalar = cli.read_config([f"--config={variant(named, 'btrm')}", *overrides])
    prepare(DATA.value, model, workdir, config, scalar.data.max_completion)
    todo = commands(named, overrides, model, workdir, CHOSEN.value)
    if ONLY_PREPARE.value:
        print(*map(shlex.join, todo.values()), sep="\n")
        return
    files.make_directory(workdir / "after")
    for name, command in todo.items():
        if name in MADE and (workdir / MADE[name]).exists():
            continue
        new = not (workdir / name / "report.json").exists()
        run(command)
        if name in CHOSEN.value and new and config.evaluation.split == "test":
            note_reading(workdir, name, command[3:])
    print(f"\nreport: {workdir / 'gemma3_270m.md'}")


if __name__ == "__main__":
    asked = [argument for argument in sys.argv if argument.startswith("--config=")]
    others = [argument for argument in sys.argv if argument.startswith("--config.")]
    experiment = asked[-1].partition("=")[2] if asked else str(EXPERIMENT)
    rest = [argument for argument in sys.argv if argument not in (*asked, *others)]
    cli.run(lambda _: main(experiment, others), FLAGS, argv=rest)
