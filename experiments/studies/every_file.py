r"""Trains for some steps on every public file of preferences or instructions that a directory holds, and tables what happened.

What: reads each source as a run does and takes some steps of a stage or two that what it holds is for: pairs train a
Bradley-Terry model, some comparisons also or only train the judge by RL, instructions are fine-tuned on. A tokenizer and a
cold start on verdicts, of the toy world and made up for shorter comparisons of all files, are made first and common to all.
Hardware: two CPU cores.
Time: a quarter of an hour; started again, it goes on where it was.
Expected result: every source trains; so small a model in so few steps learns no judgement.
Data: a directory laid out as `FILES` says; sources whose files are missing are an error.

    python experiments/studies/every_file.py --data=DIRECTORY --workdir=runs/files --output=docs/results/every_file.md
"""

import dataclasses
import pathlib
import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from absl import flags

from spct_jax import cli, pipeline, sharding
from spct_jax import config as configs
from spct_jax.config import Config
from spct_jax.data import fingerprints, sources
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.jsonl import write_jsonl
from spct_jax.data.kinds import DECIDED, DEMONSTRATIONS
from spct_jax.data.tokenizer import Tokenizer, train_tokenizer
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.grm.render import render
from spct_jax.reporting import markdown
from spct_jax.storage import files
from spct_jax.training.metric_writer import read_metrics

FLAGS = flags.FlagValues()
DATA = flags.DEFINE_string("data", None, "Directory of the files.", required=True, flag_values=FLAGS)
STEPS = flags.DEFINE_integer("steps", 12, "Steps of each stage; RL takes a third.", 3, flag_values=FLAGS)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the runs go; what is finished there stays.", required=True, flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string("output", "every_file.md", "Where the result is written.", flag_values=FLAGS)

FILES = {
    "hh_rlhf:hh-rlhf/harmless-base/test.jsonl.gz": ("btrm", "rl"),
    "pandalm:pandalm/testset-v1.json": ("btrm", "rl"),
    "gsm8k_solutions:gsm8k/example_model_solutions.jsonl": ("btrm", "rl"),
    "finegrained_rlhf:finegrained-rlhf/dev_feedback.json": ("rl",),
    "math_pairs:rewardbench_math_prm/math_prm_447.jsonl.gz": ("btrm",),
    "prometheus:prometheus/hhh_alignment_eval.json": ("btrm",),
    "prometheus:prometheus/biggen_sample_evals.json": ("rl",),
    "offsetbias:evalbiasbench/evalbiasbench.json": ("btrm",),
    "llmbar:llmbar/LLMBar/**/dataset.json": ("btrm", "rl"),
    "llama_factory:llama_factory/dpo_en_demo.json": ("btrm", "sft"),
    "gsm8k:gsm8k/train.jsonl": ("sft",),
    "gsm8k:gsm8k/test.jsonl": ("sft",),
}
"""Source, below the directory -> the stages that it trains. BiGGen's are ratings of single responses, which have no pairs."""
LIMITS = {"btrm": (1280, 768), "rl": (1536, 96), "sft": (768, 768)}
"""Stage -> longest prompt and completion in tokens; what is longer is left out and counted."""
PIECES, TEXTS = 2000, 300
"""Size of the tokenizer, and how many records of each source it is trained on."""
COLD_START, LONGEST = 300, (320, 96)
"""Steps of the cold start, and its longest prompt and completion."""
RIGHT = 0.75
"""How often a made-up verdict prefers the response that the label says."""


class Trained(NamedTuple):
    """A stage on a source."""

    source: str
    stage: str
    rows: int
    records: int
    left_out: dict[str, int]
    metrics: list[dict]
    """Of every step."""


def place(source: str, directory: pathlib.Path) -> str:
    """The source with the directory before its path."""
    layout, _, path = source.partition(":")
    return f"{layout}:{directory / path}"


def kind_of(stages: Sequence[str]):
    """What a source that trains these stages is read as, to make the tokenizer."""
    return DEMONSTRATIONS if tuple(stages) == ("sft",) else DECIDED


def texts(directory: pathlib.Path) -> Iterator[str]:
    """Those of some records of every source, and of the toy world's verdicts."""
    for source, stages in FILES.items():
        records, _ = sources.open_source(place(source, directory), kind_of(stages), on_bad="skip")
        for record in records[:TEXTS]:
            yield from (turn.content for turn in fingerprints.turns_of(record))
            yield from fingerprints.answers_of(record)


def base(tokenizer: pathlib.Path) -> Config:
    """What all runs have in common."""
    config = configs.tiny()
    config.mesh.cpu_devices = 1
    config.data = dataclasses.replace(config.data, tokenizer=str(tokenizer), on_bad="skip")
    config.checkpoint.every_steps = 1000
    return config


def verdicts(directory: pathlib.Path, prompter: Prompter) -> Iterator[Demonstration]:
    """Made-up verdicts on some comparisons of every source that RL trains on."""
    for source in (source for source, stages in FILES.items() if "rl" in stages):
        comparisons, _ = sources.open_source(place(source, directory), DECIDED, on_bad="skip")
        for number, comparison in enumerate(comparisons[:: max(len(comparisons) // TEXTS, 1)]):
            rng = random.Random(number)
            template, order = prompter.template_of(comparison), rng.sample(range(comparison.n), comparison.n)
            best = comparison.best if rng.random() < RIGHT else rng.randrange(comparison.n)
            scores = [template.high if i == best else rng.randrange(template.low, template.high) for i in order]
            if comparison.n == 1:
                scores = [int(comparison.scores[0] == (rng.random() < RIGHT))]
            *principles, analysis, scoring = template.parts
            said = [f"{label}: quality" for label in principles] + [f"{analysis}: as scored"]
            answer = "\n".join([*said, f"{scoring}: \\boxed{{{', '.join(map(str, scores))}}}"])
            yield Demonstration(render(comparison, order, template), (answer,))


def cold_start(config: Config, workdir: pathlib.Path, directory: pathlib.Path) -> pathlib.Path:
    """Trains a judge that writes verdicts in their form; the directory of the model."""
    shown = workdir.with_suffix(".jsonl")
    prompter = Prompter(PromptConfig(), Tokenizer.load(config.data.tokenizer))
    write_jsonl(shown, map(dataclasses.asdict, verdicts(directory, prompter)))
    config.stages, config.sft.steps = ("sft",), COLD_START
    config.data.train, config.data.demonstrations = "toy:", f"1*toy: + 1*jsonl:{shown}"
    config.data.max_prompt, config.data.max_completion = LONGEST
    config.sft.batch_size = 16
    pipeline.train(config, workdir)
    return workdir / "sft"


def trial(config: Config, source: str, stage: str, start: pathlib.Path, workdir: pathlib.Path) -> Trained:
    """Some steps of a stage on a source."""
    config.stages, config.init_checkpoint = (stage,), str(start)
    config.data.max_prompt, config.data.max_completion = LIMITS[stage]
    config.sft.steps, config.sft.general_fraction, config.btrm.steps = STEPS.value, 1.0, STEPS.value
    config.sft.batch_size = config.btrm.batch_size = config.rl.batch_size = 4
    config.rl.steps = STEPS.value // 3
    for optimizer in (config.sft.optimizer, config.btrm.optimizer, config.rl.optimizer):
        optimizer.warmup_steps = 2
    config.data.train, config.data.general = ("toy:", source) if stage == "sft" else (source, "")
    pipeline.train(config, workdir)
    report = files.read_json(workdir / "data.json")[source]
    summary = files.read_json(workdir / stage / "summary.json")
    longer = summary["data"]["skipped"] if stage == "sft" else {}
    left_out = report["skipped"] | longer
    records = report["used"] - sum(longer.values())
    return Trained(source, stage, report["read"], records, left_out, read_metrics(workdir / stage / "metrics.jsonl"))


def row(trained: Trained, directory: pathlib.Path) -> list[str]:
    """A line of the table."""
    first, last = trained.metrics[0], trained.metrics[-1]
    left_out = "; ".join(f"{count:,} {reason}" for reason, count in trained.left_out.items()) or "–"
    cells = [trained.source.replace(f"{directory}/", ""), f"{trained.rows:,}", f"{trained.records:,}", left_out]
    cells += [trained.stage, str(len(trained.metrics)), f"{first['loss']:.3f}", f"{last['loss']:.3f}"]
    more = {"rl": "reward", "btrm": "accuracy"}.get(trained.stage)
    return [*cells, f"{more} {first[more]:.2f} to {last[more]:.2f}" if more else "–"]


def main(_) -> None:
    """Trains on every file and writes the table."""
    directory = pathlib.Path(DATA.value).absolute()
    workdir = pathlib.Path(WORKDIR.value).absolute()
    files.make_directory(workdir)
    tokenizer, rows = workdir / "tokenizer.model", []
    sharding.use_devices(base(tokenizer).mesh)
    if not tokenizer.exists():
        train_tokenizer(list(texts(directory)), vocab_size=PIECES).save(tokenizer)
    start = cold_start(base(tokenizer), workdir / "cold", directory)
    for source, stage in ((source, stage) for source, stages in FILES.items() for stage in stages):
        own = workdir / f"{re.sub(r'[^a-z0-9_]+', '_', source)}_{stage}"
        trained = trial(base(tokenizer), place(source, directory), stage, start, own)
        rows.append(row(trained, directory))
        print(*rows[-1], sep="  ", flush=True)
    header = ["source", "rows", "records", "left out", "stage", "steps", "first loss", "last loss", "first and last step"]
    files.write(OUTPUT.value, page(markdown.table(header, rows)))


def page(table: str) -> str:
    """The result, in Markdown."""
    limits = "; ".join(f"{stage} {prompt:,} and {completion:,}" for stage, (prompt, completion) in LIMITS.items())
    return (
        "# Every public file trains\n\n"
        f"Command: `python experiments/studies/every_file.py --data=DIRECTORY --workdir=runs/files --steps={STEPS.value}`. A "
        f"model of the tiny experiment's size, with a tokenizer of {PIECES:,} pieces trained on texts of all files, makes "
        f"{COLD_START} steps of a cold start on the toy world's verdicts and on made-up ones. Every row is a run of its own "
        "from there, in steps of 4 examples. What is longer than a prompt and a completion may be, in tokens, is left out: "
        f"{limits}. Rows of `gsm8k_solutions` give several records each. RL's loss is near 0 by its construction, since the "
        f"advantages of a group have the mean 0, so its mean reward is given, too.\n\n{table}\n"
    )


if __name__ == "__main__":
    cli.run(main, FLAGS)
