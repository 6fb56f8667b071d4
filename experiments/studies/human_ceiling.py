r"""What a student of the demonstrator can reach, and what lengths and words reach, computed without a model.

    python experiments/studies/human_ceiling.py --data=runs/gemma3_270m/data --split=folds
    python experiments/studies/human_ceiling.py --data=runs/gemma3_270m/data --split=development

`--data` is what `gemma3_270m.py --only_prepare` writes. Everything is fitted on training comparisons. `folds` leaves out one
part of five of these at a time, by the first message of a conversation, and reads that: with ten times as many comparisons as
the development split it tells systems apart that the latter cannot. To read the test is to be noted in `readings.jsonl`. Prints
a table by source and how even the demonstrations are; a minute on a CPU.
"""

import collections
import pathlib
from collections.abc import Iterator, Sequence

import human_credits
import human_report
import numpy as np
from absl import flags
from human_credits import Way, source_of

from spct_jax import cli
from spct_jax.data import fingerprints
from spct_jax.data.comparison import Comparison
from spct_jax.data.jsonl import read_jsonl
from spct_jax.data.sources import read_comparisons
from spct_jax.errors import InputError
from spct_jax.grm import parse
from spct_jax.reporting import markdown

FOLDS = 5
FLAGS = flags.FlagValues()
DATA = flags.DEFINE_string("data", None, "Directory of the prepared data.", required=True, flag_values=FLAGS)
SPLIT = flags.DEFINE_enum("split", "folds", ("folds", "development", "test"), "What is read.", flag_values=FLAGS)


def readings(train: Sequence[Comparison], development: Sequence[Comparison], read: Sequence[Comparison]) -> list[Way]:
    """Every way of judging that needs no model, on other comparisons than those it was fitted on."""
    return list(human_credits.text_ways({"train": train, "development": development}, read).values())


def by_folds(train: Sequence[Comparison], development: Sequence[Comparison]) -> Iterator[tuple[list[Comparison], list[Way]]]:
    """(comparisons, ways) of every part of the training comparisons, fitted on the others."""
    opening = [fingerprints.digest([fingerprints.normalise(c.conversation[0].content)]) % FOLDS for c in train]
    for fold in range(FOLDS):
        left_out = [c for c, part in zip(train, opening, strict=True) if part == fold]
        if left_out:
            yield left_out, readings([c for c, part in zip(train, opening, strict=True) if part != fold], development, left_out)


def table(found: Sequence[tuple[Sequence[Comparison], Sequence[Way]]]) -> str:
    """Accuracy of every way, by source, of all parts together."""
    sources = np.array([source_of(c.id) for comparisons, _ in found for c in comparisons])
    counts = collections.Counter(sources.tolist()).most_common()
    masks = {f"all ({len(sources):,})": np.ones(len(sources), bool)}
    masks |= {f"{name} ({count:,})": sources == name for name, count in counts}
    rows = []
    for parts in zip(*(ways for _, ways in found), strict=True):
        credit, tied = (np.concatenate([getattr(way, field) for way in parts]) for field in ("credit", "tied"))
        cells = [human_report.accuracy(credit[mask]) for mask in masks.values()]
        rows.append([parts[0].name, *cells, markdown.percent(float(tied.mean()))])
    return markdown.table(["judge", *masks, "ties, %"], rows)


def balance(path: pathlib.Path) -> str:
    """How often the demonstrated verdicts on two responses put the first one on top, or both."""
    counts = collections.Counter()
    for _, record in read_jsonl(path):
        for text in record["completions"]:
            scores = parse.parse(text, 2)
            if scores is not None:
                counts[(scores[0] > scores[1]) - (scores[0] < scores[1])] += 1
    first = f"the response shown first is on top in {counts[1]:,} of {counts[1] + counts[-1]:,} verdicts on two"
    return f"{path.name}: {first}, and {counts[0]:,} more are ties"


def main(_) -> None:
    """Reads, and prints."""
    directory = pathlib.Path(DATA.value)
    data = {}
    for name in human_credits.DATA:
        if not (directory / f"{name}.jsonl").exists():
            raise InputError(f"{directory}: holds no {name}.jsonl; see gemma3_270m.py --only_prepare")
        data[name] = read_comparisons(directory / f"{name}.jsonl", need_best=True)[0]
    train, development = data["train"], data["development"]
    if SPLIT.value == "folds":
        print(table([*by_folds(train, development)]))
    else:
        print(table([(data[SPLIT.value], readings(train, development, data[SPLIT.value]))]))
    print("\n" + balance(directory / "demonstrations.jsonl"))


if __name__ == "__main__":
    cli.run(main, FLAGS)
