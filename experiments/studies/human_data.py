"""Human preferences and checked solutions, split by prompt: the data of the experiment with a pretrained model.

What is read, by the project's own layouts: hh-rlhf (harmless), PandaLM's test set, HHH alignment and LLMBar, in which people
preferred one of two responses, and GSM8K's example solutions, which are right or wrong. LLMBar is for the test alone. Of each
problem of GSM8K whose solutions differ, one right solution and all wrong ones make a comparison of two to four responses: the
rule of the reward needs one best response. Calculator notes, <<16-3=13>>, are taken out: they repeat the sum before them.

What is written into a directory: train, development and test with no conversation in two of them, demonstrations for every
system, general instructions, and counts.json, which says what was read, used and left out, and why.
"""

import collections
import dataclasses
import itertools
import pathlib
import random
import re
from collections.abc import Iterable, Sequence
from typing import Any

import human_demonstrator
import numpy as np
from human_weights import Weights

from spct_jax.data import duplicates, fingerprints, splits
from spct_jax.data.comparison import Comparison, to_json
from spct_jax.data.config import SPLITS
from spct_jax.data.contamination import Benchmarks
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.index import Records
from spct_jax.data.jsonl import write_jsonl
from spct_jax.data.sources import read_comparisons, read_demonstrations
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.grm.template import load_template
from spct_jax.storage import files


@dataclasses.dataclass(frozen=True)
class Source:
    """Where comparisons come from.

    Attributes:
        name: what ids begin with.
        places: sources, see `spct_jax.data.sources`, relative to the folder of all data.
        most: how many comparisons at most are used, chosen by the seed; 0: all.
        test_only: whether all of them are for the test.
    """

    name: str
    places: tuple[str, ...]
    most: int = 0
    test_only: bool = False


LLMBAR = ("Natural", "Adversarial/Neighbor", "Adversarial/GPTInst", "Adversarial/GPTOut", "Adversarial/Manual")
SOURCES = (
    Source("llmbar", tuple(f"llmbar:llmbar/LLMBar/{part}/dataset.json" for part in LLMBAR), most=160, test_only=True),
    Source("hh", ("hh_rlhf:hh-rlhf/harmless-base/test.jsonl.gz",)),
    Source("pandalm", ("pandalm:pandalm/testset-v1.json",)),
    Source("hhh", ("prometheus:prometheus/hhh_alignment_eval.json",)),
    Source("gsm8k", ("gsm8k_solutions:gsm8k/example_model_solutions.jsonl",)),
)
GENERAL = ("llama_factory:llama_factory/dpo_en_demo.json", "gsm8k:gsm8k/train.jsonl")
FRACTIONS = (0.62, 0.07, 0.31)
"""Of the conversations, for training, development and test."""
GENERAL_INSTRUCTIONS = 600
"""General instructions at most, half from either source."""
_NOTE = re.compile(r"<<[^<>]*>>")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What fits, in tokens."""

    prompt: int
    """Of a prompt in any order of its responses, the hinted one and the meta RM's included."""
    response: int
    """Of a response by itself, as a scalar reward model reads it."""
    completion: int
    """Of a demonstrated completion."""


def read(source: Source, folder: pathlib.Path, seed: int) -> tuple[list[Comparison], dict[str, Any]]:
    """The comparisons of a source, and counts; InputError naming the file where one is missing."""
    found, skipped, rows = [], collections.Counter(), 0
    for place in source.places:
        layout, _, path = place.partition(":")
        part, report = read_comparisons(f"{layout}:{folder / path}", on_bad="skip", need_best=True)
        rows, skipped = rows + report.read, skipped + collections.Counter(report.skipped)
        inner = pathlib.Path(path).parent.name.casefold() + "." if len(source.places) > 1 else ""
        found += [dataclasses.replace(c, id=f"{source.name}/{inner}{c.id}") for c in part]
    if layout == "gsm8k_solutions":
        found = [one_right(list(pairs), seed) for _, pairs in itertools.groupby(found, lambda c: c.id.rpartition(".")[0])]
    if source.most and len(found) > source.most:
        skipped["not chosen"] = len(found) - source.most
        chosen = sorted(random.Random(f"{seed}/{source.name}").sample(range(len(found)), source.most))
        found = [found[i] for i in chosen]
    return found, {"rows": rows, "comparisons": len(found), "left out": dict(skipped)}


def one_right(pairs: Sequence[Comparison], seed: int) -> Comparison:
    """One comparison of the pairs of a problem: one of its right solutions, by the seed, and all its wrong ones."""
    rng = random.Random(f"{seed}/{pairs[0].id}")
    right = rng.choice(list(dict.fromkeys(c.responses[c.best] for c in pairs)))
    wrong = list(dict.fromkeys(c.responses[1 - c.best] for c in pairs))
    responses = rng.sample([right, *wrong], 1 + len(wrong))
    return Comparison(
        conversation=pairs[0].conversation,
        responses=tuple(_NOTE.sub("", response) for response in responses),
        scores=tuple(float(response == right) for response in responses),
        id=pairs[0].id.rpartition(".")[0],
    )


def fitting(comparisons: Iterable[Comparison], prompter: Prompter, choice: Prompter, limits: Limits) -> list[Comparison]:
    """Those that fit in every system: the templates of both prompters, and the responses by themselves."""

    def fits(c: Comparison) -> bool:
        if max(prompter.tokenizer.count_completion(response) for response in c.responses) > limits.response:
            return False
        return all(p.fits(c, hinted=True, meta=True, limit=limits.prompt) for p in (prompter, choice))

    return [c for c in comparisons if fits(c)]


def split(comparisons: Sequence[Comparison], test_only: Sequence[bool]) -> tuple[dict[str, list[Comparison]], dict[str, int]]:
    """Comparisons by split, and how many were dropped, by reason.

    A conversation belongs where its first message does, so that what continues it, and other responses to it, are in the same
    split. Copies go, and then what shares 13 words in a row of a user's turn, or a whole shorter query, with the test or, of
    training, with development.
    """
    same = np.array([fingerprints.of(c)[1] for c in comparisons])
    first = duplicates.first_of(same) == np.arange(len(same))
    openings = np.array([fingerprints.digest([fingerprints.normalise(c.conversation[0].content)]) for c in comparisons])
    which = np.where(test_only, SPLITS.index("test"), splits.split_of(openings, FRACTIONS))
    found = {name: [comparisons[i] for i in np.flatnonzero(first & (which == k))] for k, name in enumerate(SPLITS)}
    dropped = {"copies of another": int((~first).sum())}
    for held_out, others in (("test", ("train", "development")), ("development", ("train",))):
        for name in others:
            clean = without(found[name], found[held_out], held_out)
            dropped[f"{name}, shares words with {held_out}"] = len(found[name]) - len(clean)
            found[name] = clean
    return found, dropped


def without(records: Sequence[Any], held_out: Sequence[Comparison], name: str) -> list[Any]:
    """The records, comparisons or demonstrations, that share nothing with the conversations of these; see `contamination`."""
    benchmark = Benchmarks([name], [Records.of(list(held_out))])
    return [record for record in records if benchmark.find(record) is None]


def general(folder: pathlib.Path, prompter: Prompter, limits: Limits, seed: int) -> tuple[list[Demonstration], dict[str, Any]]:
    """General instructions whose answers fit, as many from either source, and counts."""
    chosen, counts = [], {}
    for place in GENERAL:
        layout, _, path = place.partition(":")
        found, report = read_demonstrations(f"{layout}:{folder / path}", on_bad="skip")
        plain = [Demonstration(d.turns, tuple(_NOTE.sub("", text) for text in d.completions)) for d in found]
        short = [d for d in plain if _is_short(d, prompter, limits)]
        rng = random.Random(f"{seed}/{place}")
        some = rng.sample(short, min(len(short), GENERAL_INSTRUCTIONS // len(GENERAL)))
        chosen += some
        counts[place.partition(":")[2]] = {"rows": report.read, "too long": len(found) - len(short), "used": len(some)}
    return chosen, counts


def _is_short(demonstration: Demonstration, prompter: Prompter, limits: Limits) -> bool:
    tokenizer = prompter.tokenizer
    if max(map(tokenizer.count_completion, demonstration.completions)) > limits.completion:
        return False
    return tokenizer.count_turns(demonstration.turns) <= limits.prompt


def prepare(
    folder: pathlib.Path, directory: pathlib.Path, prompt: PromptConfig, tokenizer: Any, limits: Limits, seed: int
) -> dict:
    """Reads everything below `folder` and writes the files of all systems into `directory`; returns the counts.

    The same data and settings give the same files.

    Raises:
        InputError: a file is missing or nothing is left of a split.
    """
    prompter = Prompter(prompt, tokenizer)
    choice = Prompter(dataclasses.replace(prompt, template=prompt.choice_template), tokenizer)
    counts: dict[str, Any] = {"sources": {}}
    every, test_only = [], []
    for source in SOURCES:
        found, counts["sources"][source.name] = read(source, folder, seed)
        short = fitting(found, prompter, choice, limits)
        counts["sources"][source.name]["left out"]["too long"] = len(found) - len(short)
        every += short
        test_only += [source.test_only] * len(short)
    parts, counts["dropped"] = split(every, test_only)
    if empty := [name for name, members in parts.items() if not members]:
        raise InputError(f"{folder}: nothing is left for {empty[0]}")
    for name, members in parts.items():  # so that any part of a file is a sample of it
        random.Random(f"{seed}/{name}").shuffle(members)
    counts["splits"] = {name: _by_source(members) for name, members in parts.items()}
    files.make_directory(directory)
    for name, members in parts.items():
        write_jsonl(directory / f"{name}.jsonl", map(to_json, members))
    counts["demonstrations"] = _demonstrate(parts["train"], directory, prompt, prompter, limits, seed)
    instructions, counts["general"] = general(folder, prompter, limits, seed)
    held_out = [*parts["test"], *parts["development"]]
    clean = without(instructions, held_out, "held out")
    counts["general"]["share words with test or development"] = len(instructions) - len(clean)
    _write(directory / "general.jsonl", clean)
    files.write_json(directory / "counts.json", counts)
    return counts


def earlier_turns(train: Sequence[Comparison], seed: int) -> list[Comparison]:
    """Comparisons that need no person: what was replied earlier in a conversation, beside a reply from another conversation.

    The one that was given there is the best. All is of training comparisons, so nothing is shared with other splits.
    """
    found: dict[str, tuple[Comparison, int]] = {}
    for c in train:
        for k, turn in enumerate(c.conversation):
            if turn.role == "assistant" and k and turn.content.strip():
                found.setdefault(fingerprints.digest([t.content for t in c.conversation[: k + 1]]), (c, k))
    replies = list(dict.fromkeys(c.conversation[k].content for c, k in found.values()))
    made = []
    for c, k in found.values():
        id, said = f"{c.id}/turn{k}", c.conversation[k].content
        other = random.Random(f"{seed}/{id}").choice([reply for reply in replies if reply != said] or [""])
        if other:
            made.append(Comparison(conversation=c.conversation[:k], responses=(said, other), scores=(1.0, 0.0), id=id))
    return made


def _demonstrate(train, directory: pathlib.Path, prompt: PromptConfig, prompter: Prompter, limits: Limits, seed: int) -> dict:
    """Writes the demonstrations of every system; returns counts."""
    weights, turns, counts = Weights.fit(train), earlier_turns(train, seed), {}
    plain = "no_principles" if prompt.template == "default" else "short_no_principles"
    forms = {
        "demonstrations": (prompt.template, {}),
        "demonstrations_judge": (prompt.choice_template, {"chooses": True}),
        "demonstrations_no_principles": (plain, {}),
        "demonstrations_cloud": (prompt.single_template, None),
    }
    for name, (template, options) in forms.items():
        form = load_template(template)
        if options is None:
            (made, skipped), shown = human_demonstrator.demonstrations_alone(train, weights, form, seed), len(train)
        else:
            made, skipped = human_demonstrator.demonstrations(train, weights, form, seed, **options)
            more, others = human_demonstrator.demonstrations(turns, weights, form, seed, knows=True, **options)
            made, skipped = made + more, dict(collections.Counter(skipped) + collections.Counter(others))
            shown = len(train) + len(turns)
        short = [d for d in made if _is_short(d, prompter, limits)]
        counts[name] = {
            "comparisons": shown,
            "used": len(short),
            "completions": sum(len(d.completions) for d in short),
            "left out": skipped | {"too long": len(made) - len(short)},
        }
        _write(directory / f"{name}.jsonl", short)
    return counts


def _write(path: pathlib.Path, made: Sequence[Demonstration]) -> None:
    write_jsonl(path, map(dataclasses.asdict, made))


def _by_source(comparisons: Sequence[Comparison]) -> dict[str, int]:
    return {"all": len(comparisons), **collections.Counter(c.id.partition("/")[0] for c in comparisons)}
