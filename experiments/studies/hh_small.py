r"""SPCT on real human preferences: a judge of three million parameters, from random weights to held-out pairs.

What: reads hh-rlhf pairs, splits them by conversation, trains a SentencePiece model, makes cold-start demonstrations of
judging from the training labels, runs every stage of `spct_jax.train`, and sets each accuracy, with its 95 % bootstrap
interval, beside two baselines on the same held-out pairs: the length of the responses, and a bag of words.
Hardware: two CPU cores.
Time: about 30 minutes, a third of it the cold start; an interrupted run goes on when started again.
Expected result: whatever comes is stated in DIR/hh_small.md. So small a model with so little data hardly gets far above
chance; what it shows is that real text goes through every stage. Nothing was tuned on the held-out pairs.
Data: any file or folder of {"chosen", "rejected"} transcripts; they hold offensive text, which the report repeats.

    python experiments/studies/hh_small.py --data=PATH/hh-rlhf/harmless-base/test.jsonl.gz --workdir=runs/hh_small

Any field can be overridden, as in --config.seed=1 or --config.sft.steps=200, except the paths of its data files.
"""

import collections
import dataclasses
import json
import pathlib
import random
import re
import sys
from collections.abc import Callable, Sequence

import readers
import text_baselines
from absl import flags

from spct_jax import cli, files, pipeline
from spct_jax import config as configs
from spct_jax.config import Config, validate
from spct_jax.data.comparison import Comparison, to_json
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.jsonl import ReadReport, write_jsonl
from spct_jax.data.tokenizer import Tokenizer, train_tokenizer
from spct_jax.errors import InputError
from spct_jax.evaluation import bootstrap
from spct_jax.grm.prompts import Prompter
from spct_jax.grm.render import render
from spct_jax.grm.template import Template, load_template
from spct_jax.models.config import ModelConfig
from spct_jax.reporting import markdown, results, run_files
from spct_jax.training.data import name_templates

SPLITS = {"train": 75, "development": 5, "test": 20}
FILES = (*SPLITS, "demonstrations", "general")

DRAWN_VERDICTS = 2
"""Demonstrated completions of each training pair."""
DEMONSTRATOR_RIGHT = 0.75
"""How often the demonstrator prefers the response that people preferred; when told, he always does."""
HINTED = 0.15
"""Share of the demonstrations in which he is told."""
GENERAL = 200
"""General-instruction demonstrations."""
WEIGHTS = (5, 3, 1)

_HARM = re.compile(
    r"\b(kill|murder|hurt|harm|steal|rob|drug|weapon|bomb|gun|poison|attack|violen|hate|racis|illegal|hack|abus|cheat"
    r"|stalk|torture|threat|suicid|bully|revenge|insult|weed|cocaine|fraud|scam)",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\b(I can[’']?t|I cannot|I won[’']?t|I will not|I[’']?m not (?:able|sure|comfortable|going)"
    r"|I don[’']?t (?:think|want|know)|I[’']?m (?:sorry|afraid)|not a good idea|you shouldn[’']?t|please don[’']?t)",
    re.IGNORECASE,
)
_CARE = re.compile(r"\b(sorry|please|help|understand|feel|thank|hope|glad|safe)\b", re.IGNORECASE)
_ANOTHER_WAY = re.compile(r"\b(instead|rather|could|might|maybe|try|suggest|recommend|alternative)\b", re.IGNORECASE)

FLAGS = flags.FlagValues()
DATA = flags.DEFINE_string("data", None, "File or folder of chosen and rejected transcripts.", required=True, flag_values=FLAGS)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of the run; started again, it goes on.", required=True, flag_values=FLAGS
)


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A general criterion that the surface of a response answers with yes or no."""

    text: str
    about: str
    """What it looks at; one verdict looks at nothing twice."""
    met: Callable[[str, str], bool]
    """Of the response and the other one."""


CRITERIA = (
    Criterion("no harmful words", "harm", lambda a, _: not _HARM.search(a)),
    Criterion("declines what could hurt", "refusal", lambda a, _: bool(_REFUSAL.search(a))),
    Criterion("does not turn away", "refusal", lambda a, _: not _REFUSAL.search(a)),
    Criterion("names another way", "way", lambda a, _: bool(_ANOTHER_WAY.search(a))),
    Criterion("kind words", "care", lambda a, _: bool(_CARE.search(a))),
    Criterion("asks back", "question", lambda a, _: "?" in a),
    Criterion("answers without a question", "question", lambda a, _: "?" not in a),
    Criterion("more detail", "length", lambda a, b: len(a.split()) > len(b.split())),
    Criterion("to the point", "length", lambda a, b: len(a.split()) < len(b.split())),
)
SAFETY = ("harm", "refusal", "way")
"""What the demonstrator looks at first, three times as often as at the rest, when the conversation is about harm."""


def get_config() -> Config:
    """The experiment, but for the paths of its files."""
    rate = configs.OptimizerConfig
    return Config(
        model=ModelConfig(
            vocab_size=4096,
            num_layers=6,
            width=192,
            num_heads=6,
            num_kv_heads=2,
            head_dim=32,
            ffw_width=512,
            window=64,
            query_scale=32**-0.5,
            attn_softcap=50.0,
            final_softcap=30.0,
        ),
        data=configs.DataConfig(vocab_size=4096, max_prompt=384, max_completion=72),
        sft=configs.SFTConfig(steps=120, batch_size=32, optimizer=rate(learning_rate=2e-3)),
        rejection=configs.RejectionConfig(problems=384, batch_size=64),
        rft=configs.RFTConfig(steps=24, batch_size=32, optimizer=rate(learning_rate=5e-4)),
        rl=configs.RLConfig(steps=16, batch_size=16, optimizer=rate(learning_rate=3e-4, warmup_steps=4)),
        meta_rm=configs.MetaRMConfig(steps=30, batch_size=16, optimizer=rate(learning_rate=5e-4)),
        evaluation=configs.EvaluationConfig(problems=400, k=(1, 8), compare_temperatures=(), slots=200, texts=10),
    )


def split_of(comparison: Comparison) -> str:
    """The split that owns a conversation, by its first message, so that what continues it falls in the same one."""
    opening = " ".join(comparison.conversation[0].content.casefold().split())
    place = readers.stable_hash("split", opening) % 100
    return "train" if place < SPLITS["train"] else "development" if place < 100 - SPLITS["test"] else "test"


def verdict(rng: random.Random, shown: Comparison, order: Sequence[int], template: Template, favourite: int):
    """A verdict in the template's parts that favours one response, or None if no criterion tells it from the other.

    The first criterion, which outweighs the others, is one that only the favourite meets; the others are any. The
    analysis says, truthfully, which criteria each response meets, by number; a score is one plus the weights met.
    """
    a, b = shown.responses
    met = {c: (c.met(a, b), c.met(b, a)) for c in CRITERIA}
    telling = [c for c in CRITERIA if met[c][favourite] and not met[c][1 - favourite]]
    if not telling:
        return None
    about_harm = any(_HARM.search(turn.content) for turn in shown.conversation)
    criteria = rng.choices(telling, [3 if about_harm and c.about in SAFETY else 1 for c in telling])
    while len(criteria) < len(WEIGHTS):
        used = {c.about for c in criteria}
        criteria.append(rng.choice([c for c in CRITERIA if c.about not in used]))
    scores = [1 + sum(w for w, c in zip(WEIGHTS, criteria, strict=True) if met[c][i]) for i in range(2)]
    listed = [f"{j}. {c.text} ({w})" for j, (c, w) in enumerate(zip(criteria, WEIGHTS, strict=True), start=1)]
    lines = []
    for place, i in enumerate(order, start=1):
        readings = ", ".join(f"{j} {'yes' if met[c][i] else 'no'}" for j, c in enumerate(criteria, start=1))
        lines.append(f"Response {place}: {readings} = {scores[i]}")
    *principles, analysis, scoring = template.parts
    head = [f"{principles[0]}:", *listed] if principles else []
    boxed = ", ".join(str(scores[i]) for i in order)
    return "\n".join([*head, f"{analysis}:", *lines, f"{scoring}: \\boxed{{{boxed}}}"])


def demonstrations(
    comparisons: Sequence[Comparison], template: Template, seed: int = 0
) -> tuple[list[Demonstration], dict[str, int]]:
    """Judging as the cold start learns it, one demonstration a pair; and how many pairs give none, and why."""
    made, skipped = [], collections.Counter()
    for shown in comparisons:
        rng = random.Random(readers.stable_hash("verdict", str(seed), shown.id))
        order = rng.sample(range(2), 2)
        told = rng.random() < HINTED and template.hint is not None
        right = [told or rng.random() < DEMONSTRATOR_RIGHT for _ in range(DRAWN_VERDICTS)]
        favourites = [shown.best if r else 1 - shown.best for r in right]
        texts = [text for f in favourites if (text := verdict(rng, shown, order, template, f))]
        if texts:
            turns = render(shown, order, template, hint=shown.best if told else None)
            made.append(Demonstration(turns, tuple(texts)))
        else:
            skipped["no criterion tells the responses apart"] += 1
    return made, dict(skipped)


def general_instructions(
    comparisons: Sequence[Comparison], tokenizer: Tokenizer, data: configs.DataConfig
) -> list[Demonstration]:
    """Plain dialogue: the preferred response, as many of its whole sentences as fit; the first `GENERAL` that do."""
    made: list[Demonstration] = []
    for shown in comparisons:
        sentences = re.split(r"(?<=[.!?])\s+", shown.responses[shown.best])
        while sentences and len(tokenizer.encode_completion(" ".join(sentences))) > data.max_completion:
            sentences.pop()
        if sentences and len(tokenizer.encode_turns(shown.conversation)) <= data.max_prompt and len(made) < GENERAL:
            made.append(Demonstration(shown.conversation, (" ".join(sentences),)))
    return made


def prepare(path: str, workdir: pathlib.Path, config: Config) -> tuple[Config, dict[str, list[Comparison]]]:
    """Reads the pairs and writes all files of the run into `workdir`/data; returns the config that names them.

    The same pairs and settings give the same files, so a restarted run finds what it left.

    Raises:
      InputError: the pairs or the config are wrong, or `workdir` holds a run on other data.
    """
    given = [name for name in (*FILES, "tokenizer") if getattr(config.data, name)]
    if given:
        raise InputError(f"--config.data.{given[0]}: this experiment makes that file itself, from --data")
    comparisons, read = readers.read_pairs(path, config.data.on_bad)
    directory = workdir / "data"
    _claim(directory, comparisons, config)
    config = name_templates(config)
    template = load_template(config.prompt.template)
    if not template.parts:
        raise InputError(f"--config.prompt.template: {template.name!r} has no parts to demonstrate a verdict in")
    splits = {name: [c for c in comparisons if split_of(c) == name] for name in SPLITS}
    shown, _ = demonstrations(splits["train"], template, config.seed)
    texts = [text for d in shown for text in (*(turn.content for turn in d.turns), *d.completions)]
    tokenizer = train_tokenizer(texts, vocab_size=config.data.vocab_size)
    tokenizer.save(directory / "tokenizer.model")

    prompter, limit = Prompter(config.prompt, tokenizer), config.data.max_prompt
    for name, members in splits.items():
        splits[name] = [c for c in members if prompter.longest(c, hinted=True, meta=True, limit=limit) <= limit]
        if not splits[name]:
            raise InputError(f"{path}: no pair is left for the {name} split, of {len(members)} before the length limit")
        write_jsonl(directory / f"{name}.jsonl", map(to_json, splits[name]))
    read.used = sum(map(len, splits.values()))
    if long := len(comparisons) - read.used:
        read.skipped[f"prompt longer than {config.data.max_prompt} tokens"] = long
    shown, without = demonstrations(splits["train"], template, config.seed)
    _write_demonstrations(directory / "demonstrations.jsonl", shown)
    general = general_instructions(splits["train"], tokenizer, config.data)
    _write_demonstrations(directory / "general.jsonl", general)
    _announce(read, splits)
    print(f"demonstrations: {len(shown):,} of judging, {len(general):,} general")
    for reason, count in without.items():
        print(f"  {count:,} training pairs without one: {reason}")
    paths = {name: str(directory / f"{name}.jsonl") for name in FILES}
    data = dataclasses.replace(config.data, **paths, tokenizer=str(directory / "tokenizer.model"))
    return dataclasses.replace(config, data=data), splits


def _claim(directory: pathlib.Path, comparisons: Sequence[Comparison], config: Config) -> None:
    """Notes what the files are made from on the first start, compares it on every later one."""
    made_from = json.dumps([dataclasses.asdict(p) for p in (*comparisons, config.data, config.prompt)])
    wanted = f"{readers.stable_hash(str(config.seed), made_from):x}"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "made_from.txt"
    if path.exists() and path.read_text() != wanted:
        raise InputError(f"{directory.parent}: holds a run on other data or settings; choose another --workdir")
    files.write(path, wanted)


def _write_demonstrations(path: pathlib.Path, made: Sequence[Demonstration]) -> None:
    write_jsonl(path, map(dataclasses.asdict, made))


def _announce(read: ReadReport, splits: dict[str, list[Comparison]]) -> None:
    sizes = ", ".join(f"{name} {len(members):,}" for name, members in splits.items())
    print(f"pairs: read {read.read:,}, used {read.used:,} ({sizes}), skipped {read.read - read.used:,}")
    for reason, count in read.skipped.items():
        print(f"  {count:,} skipped: {reason}")


def page(workdir: pathlib.Path, config: Config, splits: dict[str, list[Comparison]]) -> str:
    """The accuracy of every model and of the baselines on the pairs that were judged, with intervals."""
    run = run_files.read_run_files(workdir)
    judged = [c for c in splits[config.evaluation.split] if c.id in run.problems]
    length = text_baselines.Length.fit(splits["train"])
    words = text_baselines.BagOfWords.fit(splits["train"], splits["development"])
    by_words = text_baselines.credits(words.totals(judged), judged)
    judges = {
        str(length): text_baselines.credits(length.totals(judged), judged),
        str(words): by_words,
        **{f"{label} {measure}": t.credit for label, row in results.tallies(run).items() for measure, t in row.items()},
    }
    rows = []
    for name, credits in judges.items():
        ahead = bootstrap.paired(credits, by_words)
        accuracy = markdown.percent(float(credits.mean()), bootstrap.interval(credits))
        difference = markdown.percent(ahead.mean, (ahead.low, ahead.high), signed=True)
        rows.append([name, accuracy, "–" if credits is by_words else difference])
    sizes = ", ".join(f"{len(members):,} {name}" for name, members in splits.items())
    return (
        "# Human preferences, held-out pairs\n\n"
        f"Accuracy in % on {len(judged):,} {config.evaluation.split} pairs, with 95 % bootstrap intervals over pairs; "
        f"a tie counts 1/2, so chance is 50. Pairs used: {sizes}. Whether length favours the longer or the shorter "
        "response, and the weights of the words, come from the training pairs, the strength of L2 from the development "
        f"pairs. Seed {config.seed}; report.md says more about the run.\n\n"
        + markdown.table(["judge", "accuracy", "ahead of the bag of words, points"], rows)
        + "\n"
    )


def main(_) -> None:
    """Entry of `python experiments/studies/hh_small.py`."""
    workdir, config = pathlib.Path(WORKDIR.value), FLAGS.config
    if "evaluate" not in config.stages:
        raise InputError("config.stages: this experiment is about its evaluation; add 'evaluate'")
    validate(config)
    config, splits = prepare(DATA.value, workdir, config)
    pipeline.train(config, workdir)
    text = page(workdir, config, splits)
    files.write(workdir / "hh_small.md", text)
    print(text + f"\nwritten to {workdir / 'hh_small.md'}; the run's report: {workdir / 'report.md'}")


if __name__ == "__main__":
    own_config = [] if any(a.startswith("--config=") for a in sys.argv) else [f"--config={__file__}"]
    cli.run(main, FLAGS, with_config=True, argv=[*sys.argv, *own_config])
