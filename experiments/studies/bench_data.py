"""Times the data of a run on a million records of two kilobytes: how long to the first batch, how fast any record is read.

    python experiments/studies/bench_data.py --records=1000000 --output=docs/results/data.md

The records are written to a temporary directory, as JSON Lines and then as a tfds dataset of ArrayRecord files. Every figure is
that of a process, or of two, started for it alone: wall time, CPU seconds of all its processes, and the largest memory of any.
"""

import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import flags

from spct_jax import cli

ROOT = pathlib.Path(__file__).absolute().parents[2]
FLAGS = flags.FlagValues()
RECORDS = flags.DEFINE_integer("records", 1_000_000, "How many records.", lower_bound=1000, flag_values=FLAGS)
MAX_PROMPT = flags.DEFINE_integer("max_prompt", 1024, "Longest prompt in tokens.", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", "", "File to write the table to.", flag_values=FLAGS)
STEP = flags.DEFINE_string("step", "", "One of the steps, in this process (the study starts itself).", flag_values=FLAGS)
DIRECTORY = flags.DEFINE_string("directory", "", "Where the files of a step are.", flag_values=FLAGS)
COORDINATOR = flags.DEFINE_string("coordinator", "", "As of spct_jax.train.", flag_values=FLAGS)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "As of spct_jax.train.", flag_values=FLAGS)
PROCESS_ID = flags.DEFINE_integer("process_id", 0, "As of spct_jax.train.", flag_values=FLAGS)

SOURCES, WEIGHTS = 5, (5, 1, 2, 0.5, 1.5)


def write_records(directory: pathlib.Path) -> None:
    """JSON Lines of records of 2 kB, in five files."""
    words = (ROOT / "docs" / "training.md").read_text().split()
    rng = random.Random(0)
    texts = [" ".join(rng.choices(words, k=260))[:850] for _ in range(5000)]
    for source in range(SOURCES):
        with open(directory / f"{source}.jsonl", "w") as file:
            for i in range(source, RECORDS.value, SOURCES):
                query, *answers = (f"{i} {rng.choice(texts)}"[:most] for most in (300, 790, 785))
                record = {"id": str(i), "query": query, "responses": answers, "scores": [i % 2, 1 - i % 2]}
                file.write(json.dumps(record) + "\n")


def mixture(directory: pathlib.Path) -> str:
    """The five files as one source."""
    return " + ".join(f"{weight}*jsonl:{directory}/{source}.jsonl" for source, weight in enumerate(WEIGHTS))


def config_of(directory: pathlib.Path, train: str):
    """A run of RL on the records."""
    from spct_jax import config as config_lib

    config = config_lib.tiny()
    config.stages, config.init_checkpoint = ("rl",), ""
    config.mesh.cpu_devices = 1
    config.data = config_lib.DataConfig(train=train, max_prompt=MAX_PROMPT.value, tokenizer=str(directory / "tokenizer.model"))
    config.data.data_dir = str(directory)
    return config


def first_batch(directory: pathlib.Path, train: str, workdir: pathlib.Path):
    """What a run does before its first step: index, survey, and the prompts of a batch of 64 comparisons."""
    from spct_jax import sharding
    from spct_jax.data import batches
    from spct_jax.grm.prompts import Prompter
    from spct_jax.runtime import distributed
    from spct_jax.training import data, fitting, rl
    from spct_jax.training.context import Run

    config = data.name_templates(config_of(directory, train))
    config.rl.batch_size = 64
    sharding.use_devices(config.mesh)
    distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    (workdir / "data").mkdir(parents=True, exist_ok=True)
    dataset = data.load_dataset(config, workdir / "data")
    prompter = Prompter(config.prompt, data.load_tokenizer(config, dataset, workdir / "tokenizer.model"))
    run = Run(config, workdir, dataset, prompter, config.model, None, None)
    run = fitting.drop_misfits(run)
    numbers = rl.prompts_of(run, np.arange(len(run.dataset.train)), 0)
    comparisons = [run.dataset.train[number] for number in numbers]
    prompts = [run.prompter.encode(c, range(c.n)) for c in comparisons]
    batches.pack_prompts(prompts, MAX_PROMPT.value)
    return run


def random_reads(directory: pathlib.Path, source: str, kept: pathlib.Path, name: str) -> float:
    """Records per second, read one by one in random order."""
    from spct_jax.data.kinds import DECIDED
    from spct_jax.data.sources import open_source

    records, _ = open_source(source, DECIDED, directory=kept, data_dir=str(directory), name=name)
    numbers = np.random.default_rng(0).integers(len(records), size=20_000)
    start = time.perf_counter()
    for number in numbers:
        records[int(number)]
    return len(numbers) / (time.perf_counter() - start)


def drawn(directory: pathlib.Path, first: int) -> str:
    """Digest of the records of steps 20 to 40 of the mixture, in a run that begins with step `first`."""
    from spct_jax.data.comparison import to_json
    from spct_jax.storage import digests
    from spct_jax.training import rl

    run = first_batch(directory, mixture(directory), directory / "mixture")
    every = np.arange(len(run.dataset.train))
    found = [[to_json(run.dataset.train[n]) for n in rl.prompts_of(run, every, step)] for step in range(first, 40)]
    return digests.of_json(found[20 - first :])


def take(step: str, directory: pathlib.Path) -> str:
    """Takes a step in this process; what it found, as text."""
    name, _, argument = step.partition(" ")
    first = f"jsonl:{directory}/0.jsonl"
    if name == "tokenizer":
        from spct_jax.data.tokenizer import train_tokenizer

        with open(directory / "0.jsonl") as file:
            texts = [json.loads(line)["responses"][0] for line, _ in zip(file, range(2000), strict=False)]
        train_tokenizer(texts, vocab_size=4000).save(directory / "tokenizer.model")
        return ""
    if name == "first":
        train = {"tfds": "tfds:built:train", "mixture": mixture(directory)}[argument]
        return f"{len(first_batch(directory, train, directory / argument).dataset.train):,} records"
    if name == "build":
        from spct_jax.data import build
        from spct_jax.data.kinds import DECIDED
        from spct_jax.data.sources import open_source

        records, _ = open_source(f"jsonl:{directory}/*.jsonl", DECIDED, directory=directory, name="all")
        return f"{build.build({'train': records}, directory / 'built')['train']:,} records"
    if name == "read":
        source, kept, own = {
            "jsonl": (first, "mixture", "train.0"),
            "tfds": ("tfds:built:train", "tfds", "train"),
        }[argument]
        return f"{random_reads(directory, source, directory / kept / 'data', own):,.0f} records/s"
    return drawn(directory, int(argument))


def timed(step: str, directory: pathlib.Path, processes: int = 1) -> tuple[str, dict[str, float]]:
    """(what a step found, its wall and CPU seconds and gigabytes), in one process or in several of one run."""
    own = [sys.executable, __file__, f"--step={step}", f"--directory={directory}", f"--records={RECORDS.value}"]
    own.append(f"--max_prompt={MAX_PROMPT.value}")
    if processes > 1:
        own = [sys.executable, str(ROOT / "launch" / "local.py"), f"--processes={processes}", "--restarts=0", "--", *own]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(own, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{step}: {done.stderr}")
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = [line.rsplit("; ", 1) for line in done.stdout.splitlines() if "; " in line]
    return said[-1][0], {"seconds": wall, "CPU seconds": cpu, "GB": max(float(memory) for _, memory in said)}


def main(_) -> None:
    """Takes all steps, each in processes of its own, and prints the table."""
    if STEP.value:
        found = take(STEP.value, pathlib.Path(DIRECTORY.value))
        print(f"{found}; {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f}")
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench_data_") as scratch:
        directory = pathlib.Path(scratch)
        write_records(directory)
        size = sum(os.path.getsize(path) for path in directory.iterdir()) / RECORDS.value
        timed("tokenizer", directory)
        first = "index, survey, first batch"
        steps = [
            (f"{first}: a mixture of five files", "first mixture", 2),
            ("the same in one process, index and survey kept", "first mixture", 1),
            ("20,000 random reads of JSON Lines", "read jsonl", 1),
            ("digest of steps 20 to 40 of the mixture, begun at step 0", "drawn 0", 1),
            ("the same, resumed at step 20", "drawn 20", 1),
            ("the files are built into a tfds dataset", "build", 1),
            (f"{first}: the dataset", "first tfds", 2),
            ("20,000 random reads of the dataset", "read tfds", 1),
        ]
        for title, step, processes in steps:
            found, figures = timed(step, directory, processes)
            title = f"{title}, two processes" if processes > 1 else title
            rows.append((title, found, *(f"{figure:.1f}" for figure in figures.values())))
            print(*rows[-1], sep="  ", flush=True)
            if OUTPUT.value:
                pathlib.Path(OUTPUT.value).write_text(table(size, rows))
    print(table(size, rows))


def table(size: float, rows: list[tuple[str, ...]]) -> str:
    """What was found, in Markdown."""
    header = [f"{RECORDS.value:,} records of {size:,.0f} bytes", "found", "seconds", "CPU seconds", "GB"]
    lines = [header, ["---", "---", "--:", "--:", "--:"], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    cli.run(main, FLAGS)
