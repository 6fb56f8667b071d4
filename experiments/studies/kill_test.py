r"""Kills training runs with SIGKILL, starts them again each time, and holds them against an undisturbed run.

    python experiments/studies/kill_test.py --workdir=runs/kill --kills=20 --output=docs/results/kill_test.md
    python experiments/studies/kill_test.py --workdir=runs/kill --kills=20 --processes=2 --life=30 --other_processes=1 \
        --other_mesh=strategy=data,cpu_devices=2 --config.mesh.strategy=fsdp --output=docs/results/kill_meshes.md

With --bucket the runs live in a bucket, that of an emulator of Google Cloud Storage on this machine (`tests/buckets.py`):

    python experiments/studies/kill_test.py --workdir=runs/kill --bucket --every_stage --life=1.5 \
        --config=experiments/studies/micro.py --config.init_checkpoint=$PWD/runs/tiny/sft --output=docs/results/kill_bucket.md

With --datasets the toy world's records are first written as tfds datasets of ArrayRecord files, and all runs read them from
there; for training they are mixed from two of them.

Every life is the README's own command, relative path included, given in a directory of the run; several processes are started
by the launcher.

Three runs. The first is undisturbed. The second is killed and started again on the same mesh: it must end with bitwise the
same parameters in every stage and, times and throughput aside, the same report. The third, where --other_mesh or
--other_processes is given, lives on the two meshes in turn, which differ in rounding; it must end too. In neither may a
checkpoint be found damaged, or a life go on from a step before the last finished save.

Every kill takes one process or all of them, at any moment, in the midst of a save, or in the midst of a rollout, all drawn
from --seed (`kills.py`). The lives are drawn uniformly, so that together they last about two thirds of the undisturbed run, or
`--life` seconds each on average; what a kill is aimed at makes them longer, and finished evaluation is not done again. With
--every_stage the kills are dealt to the stages in order, and `--life` counts from the first step that a life saves there.
Fields of the experiment are set as for training, `--config.sft.steps=40`; a path among them must be absolute. On two CPU cores
the default takes two to three times the tiny experiment.
"""

import contextlib
import hashlib
import os
import pathlib
import sys

import jax
import kills
import numpy as np
from absl import flags

from spct_jax import checkpoints, cli
from spct_jax.config import Config
from spct_jax.data import build
from spct_jax.errors import InputError
from spct_jax.storage import files
from spct_jax.storage.paths import Path
from spct_jax.training.data import name_templates, toy_records

NAME = "gs://spct-kill-test"
"""The bucket."""
RIGHT = "Bitwise the same parameters in every stage, the same verdicts, and the same report figures"
MEASURED = {"seconds", "compile_seconds", "tokens_per_second", "device_idle", "peak_memory_gib", "padding", "padded_over_real"}
"""Fields of a report that no two runs share; what is drawn again after a kill counts twice in the sampler's padding."""

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "Where the runs go.", required=True, flag_values=FLAGS)
KILLS = flags.DEFINE_integer("kills", 10, "How often a run is killed.", lower_bound=1, flag_values=FLAGS)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the kills.", flag_values=FLAGS)
PROCESSES = flags.DEFINE_integer("processes", 1, "Processes of the run.", lower_bound=1, flag_values=FLAGS)
OTHER_MESH = flags.DEFINE_list(
    "other_mesh", [], "Fields of config.mesh, such as strategy=data,cpu_devices=2.", flag_values=FLAGS
)
OTHER_PROCESSES = flags.DEFINE_integer(
    "other_processes", 0, "Processes on the other mesh; 0: as many as on the first.", flag_values=FLAGS
)
LIFE = flags.DEFINE_float(
    "life", 0.0, "Seconds between kills on average; 0: as the undisturbed run's time allows.", flag_values=FLAGS
)
DATASETS = flags.DEFINE_bool("datasets", False, "Whether the records are read from tfds datasets.", flag_values=FLAGS)
EVERY_STAGE = flags.DEFINE_bool("every_stage", False, "Whether each stage has its share of the kills.", flag_values=FLAGS)
BUCKET = flags.DEFINE_bool("bucket", False, "Whether the runs live in a bucket.", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", "kill_test.md", "Where the result is written.", flag_values=FLAGS)


def digests(workdir: Path) -> dict[str, str]:
    """A hash of the final parameters of every trained stage."""
    found = {}
    for stage in files.matching(workdir, "*"):
        if (stage / "model.json").exists():
            found[stage.name] = hash_tree(checkpoints.load(stage, kind=checkpoints.read_card(stage).kind).params)
    return found


def hash_tree(tree) -> str:
    """SHA-256 of every leaf's path and bytes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def verdicts(workdir: Path) -> dict[str, bytes]:
    """The files of verdicts, by name."""
    return {path.name: path.read_bytes() for path in files.matching(workdir / "evaluate", "*.jsonl")}


def figures(workdir: Path) -> dict:
    """The report without times, throughput and memory."""

    def comparable(value):
        if isinstance(value, dict):
            return {k: comparable(v) for k, v in value.items() if k not in MEASURED}
        return value

    return comparable(files.read_json(workdir / "report.json"))


def compare(calm: Path, killed: Path) -> list[str]:
    """What differs between the finished runs in two directories; empty if nothing does."""
    one, other = digests(calm), digests(killed)
    wrong = [f"parameters of {stage} differ" for stage in one if one[stage] != other.get(stage)]
    one, other = verdicts(calm), verdicts(killed)
    wrong += [f"verdicts in {name} differ" for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    one, other = figures(calm), figures(killed)
    return wrong + [f"report field {field} differs" for field in one if one[field] != other.get(field)]


def meshes() -> list[kills.Mesh]:
    """The mesh of the experiment and, where it is given, the other one."""
    first = kills.Mesh(PROCESSES.value)
    if not (OTHER_MESH.value or OTHER_PROCESSES.value):
        return [first]
    fields = tuple(f"--config.mesh.{field}" for field in OTHER_MESH.value)
    return [first, kills.Mesh(OTHER_PROCESSES.value or first.processes, fields)]


def write_datasets(config: Config, directory: pathlib.Path) -> list[str]:
    """Writes the toy world's records as tfds datasets, those for training as two, and gives the fields that name them."""
    toy, prompt = config.data.toy, name_templates(config).prompt
    for field in ("train", "development", "test", "demonstrations", "general"):
        records = toy_records(toy, prompt, field, field)
        parts = {"one": records[::2], "other": records[1::2]} if field == "train" else {field: records}
        for name, part in parts.items():
            build.build({"train": part}, directory / name, shards=3)
    named = {field: f"tfds:{field}:train" for field in ("development", "test", "demonstrations", "general")}
    named |= {"train": "3*tfds:one:train + 1*tfds:other:train", "data_dir": str(directory)}
    return [f"--config.data.{field}={value}" for field, value in named.items()]


def section(title: str, lines: list[str], wrong: list[str], right: str) -> list[str]:
    """Of the report: a run's verdict and its lives."""
    return [f"## {title}", "", f"{'; '.join(wrong) or right}.", "", *(f"{i}. {line}" for i, line in enumerate(lines, 1)), ""]


def main(_) -> None:
    """Runs the test and writes what happened."""
    root = pathlib.Path(WORKDIR.value).absolute()
    root.mkdir(parents=True, exist_ok=True)
    calm, killed, moved = root / "calm", root / "killed", root / "moved"
    for directory in (calm, killed, moved):
        if directory.exists():
            raise InputError(f"{directory} exists; choose another --workdir")
    overrides = [a for a in ARGUMENTS if a.startswith("--config.")]
    overrides += [f"--config={pathlib.Path(a[9:]).absolute()}" for a in ARGUMENTS if a.startswith("--config=")]
    if DATASETS.value:
        overrides += write_datasets(FLAGS.config, root / "data")
    with contextlib.ExitStack() as stack:
        if BUCKET.value:
            serve_bucket(stack)
        test(calm, killed, moved, overrides)


def serve_bucket(stack: contextlib.ExitStack) -> None:
    """Points this process, and those that it starts, to a bucket on this machine."""
    sys.path.append(str(kills.ROOT / "tests"))
    import buckets

    stack.enter_context(buckets.pointed_to(stack.enter_context(buckets.served(NAME))))


def in_bucket(directory: pathlib.Path) -> list[str]:
    """The flag that puts the run of a directory into the bucket, where there is one."""
    return [f"--workdir={NAME}/{directory.name}"] if BUCKET.value else []


def test(calm: pathlib.Path, killed: pathlib.Path, moved: pathlib.Path, overrides: list[str]) -> None:
    """Makes the runs and writes what happened."""
    duration = kills.run_undisturbed(calm, [*overrides, *in_bucket(calm)], meshes()[0])
    print(f"undisturbed: {duration:.0f} s", flush=True)
    life = LIFE.value or 2 / 3 * duration / KILLS.value
    stages = FLAGS.config.stages if EVERY_STAGE.value else ()
    lines, wrong = kills.run_killed(
        killed, [*overrides, *in_bucket(killed)], meshes()[:1], KILLS.value, life, SEED.value, stages
    )
    ended = kills.workdir_in(killed, in_bucket(killed))
    wrong += compare(kills.workdir_in(calm, in_bucket(calm)), ended)
    shown = " ".join(a.replace(os.getcwd(), "$PWD") for a in ARGUMENTS if not a.startswith("--workdir"))
    report = [
        f"# Killed {KILLS.value} times, restarted {KILLS.value} times",
        "",
        f"Command: `python experiments/studies/kill_test.py {shown}`",
        "",
        f"Every life: `{' '.join(['python', *kills.readme_command()[1:], *in_bucket(killed)])}`, in a directory of the run.",
        "",
        f"Undisturbed run: {duration:.0f} s.",
        "",
        *section("On the same mesh", lines, wrong, RIGHT),
        *(f"- parameters of {stage}: sha256 `{digest}`" for stage, digest in digests(ended).items()),
        "",
    ]
    if len(meshes()) > 1:
        lines, also_wrong = kills.run_killed(
            moved, [*overrides, *in_bucket(moved)], meshes(), KILLS.value, life, SEED.value + 1, stages
        )
        report += section("On two meshes in turn", lines, also_wrong, "Came to its end; no checkpoint was damaged or lost")
        wrong += also_wrong
    pathlib.Path(OUTPUT.value).write_text("\n".join(report))
    print("\n".join(report))
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    ARGUMENTS = sys.argv[1:]
    cli.run(main, FLAGS, with_config=True)
