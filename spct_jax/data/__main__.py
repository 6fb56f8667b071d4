"""What is in a source of data, before anything is trained on it; and datasets from which any record is read by itself.

    python -m spct_jax.data --source=SOURCE [--tokenizer=FILE | --checkpoint=DIR] [--template=NAME] [--json=FILE]
    python -m spct_jax.data build --source=SOURCE --to=DIR [--shards=N] [--split=0.9,0.05,0.05] [--deduplicate]
                                  [--decontaminate=BENCHMARK ..]

The first prints a data card, the second writes ArrayRecord files that `tfds:NAME:SPLIT` reads. SOURCE may be a mixture. See
docs/data.md.
"""

import functools
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from absl import flags

from spct_jax import checkpoints, cli, field_bounds, interrupts
from spct_jax.data import build, card, card_text, fields, mixtures, sources
from spct_jax.data.comparison import Comparison
from spct_jax.data.config import SPLITS, DataConfig
from spct_jax.data.index import Records
from spct_jax.data.jsonl import OnBad, ReadReport
from spct_jax.data.kinds import COMPARISONS, DEMONSTRATIONS, Kind
from spct_jax.data.layouts import LAYOUTS
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.storage import files, paths
from spct_jax.toy.config import ToyConfig
from spct_jax.training.data import toy_records

KINDS = {kind.name: kind for kind in (COMPARISONS, DEMONSTRATIONS)}
CARD, BUILD = flags.FlagValues(), flags.FlagValues()


def _define_reading(own: flags.FlagValues, on_bad: str) -> None:
    """The flags that both commands have: what is read, and how."""
    flags.DEFINE_string("source", None, "LAYOUT:PATH, jsonl:PATH, tfds:NAME:SPLIT, ..", required=True, flag_values=own)
    flags.DEFINE_enum("kind", None, list(KINDS), "What the records are, where the layout does not say.", flag_values=own)
    flags.DEFINE_string("data_dir", "", "Where prepared tfds datasets lie; default: where tfds looks.", flag_values=own)
    flags.DEFINE_list("fields", [], "OURS=THEIRS, ..: names that rows have for fields of the layout.", flag_values=own)
    flags.DEFINE_enum("on_bad", on_bad, ("skip", "fatal"), "What a bad row does.", flag_values=own)


_define_reading(CARD, "skip")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "SentencePiece model that counts the tokens.", flag_values=CARD)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Model directory whose tokenizer and templates are used instead.", flag_values=CARD
)
TEMPLATE = flags.DEFINE_string("template", None, "Wording of the task, by name or file.", flag_values=CARD)
JSON = flags.DEFINE_string("json", "", "File to write the figures to, as JSON.", flag_values=CARD)
SAMPLE = flags.DEFINE_integer("sample", 20_000, "Most records whose lengths are measured.", lower_bound=1, flag_values=CARD)

_define_reading(BUILD, "fatal")
TO = flags.DEFINE_string("to", None, "New directory; its name is that of the dataset.", required=True, flag_values=BUILD)
SHARDS = flags.DEFINE_integer(
    "shards", 0, f"Files of each split; 0: one for every {build.PER_SHARD:,} records.", lower_bound=0, flag_values=BUILD
)
SPLIT = flags.DEFINE_list("split", [], "Fractions of the prompts for train, development and test.", flag_values=BUILD)
DEDUPLICATE = flags.DEFINE_bool("deduplicate", False, "Leave out copies of earlier records.", flag_values=BUILD)
DECONTAMINATE = flags.DEFINE_multi_string(
    "decontaminate", [], "A benchmark, as a source, of which nothing may be left; may be repeated.", flag_values=BUILD
)
FORMAT = flags.DEFINE_string("format", build.FORMAT, "Of the files; only array_record keeps all rows.", flag_values=BUILD)


def opener(own: flags.FlagValues, directory: pathlib.Path) -> fields.Opener:
    """Opens sources as the flags say; what is found out about files is kept in the directory."""

    def open_source(text: str, kind: Kind, on_bad: OnBad, name: str) -> tuple[Records, ReadReport]:
        source = sources.parse_source(text)
        if source.format == "toy":
            field = source.place or ("train" if kind is COMPARISONS else "demonstrations")
            if field not in (known := (*SPLITS, "demonstrations", "general")):
                raise InputError(f"{text}: the toy world has no {field!r} ({', '.join(known)})")
            records = toy_records(ToyConfig(), PromptConfig(), field, field)
            return records, ReadReport(len(records), len(records))
        given = {"on_bad": on_bad, "data_dir": own.data_dir, "fields": own.fields, "directory": directory, "name": name}
        return sources.open_source(source, kind, **given)

    return open_source


def measures() -> tuple[str, Callable[[str], int], Callable[[Any], int] | None]:
    """(unit of lengths, length of a text, length of the whole prompt of a record where a tokenizer is given)."""
    if TOKENIZER.value and CHECKPOINT.value:
        raise InputError("--tokenizer and --checkpoint both name a tokenizer; give one of them")
    if not (TOKENIZER.value or CHECKPOINT.value):
        if TEMPLATE.value:
            raise InputError("--template needs --tokenizer or --checkpoint, since prompts are measured in tokens")
        return "characters", len, None
    carried = checkpoints.read_templates(CHECKPOINT.value) if CHECKPOINT.value else None
    tokenizer = checkpoints.read_tokenizer(CHECKPOINT.value) if CHECKPOINT.value else Tokenizer.load(TOKENIZER.value)
    prompt = carried or PromptConfig()
    if TEMPLATE.value:
        prompt = PromptConfig(TEMPLATE.value, TEMPLATE.value, prompt.meta_template, prompt.choice_template)
    prompter = Prompter(prompt, tokenizer)

    def prompt_length(record: Any) -> int:
        if isinstance(record, Comparison):
            return prompter.longest(record, limit=1 << 30)
        return len(tokenizer.encode_turns(record.turns))

    return "tokens", lambda text: len(tokenizer.encode(text)), prompt_length


def show_card(_) -> None:
    """Entry of `python -m spct_jax.data`."""
    unit, length, prompt_length = measures()
    if JSON.value and not pathlib.Path(JSON.value).absolute().parent.is_dir():
        raise InputError(f"--json={JSON.value}: not in a directory")
    field_bounds.check(DataConfig(train=CARD.source, fields=tuple(CARD.fields)), "--")
    weighted = mixtures.parse(CARD.source)
    if JSON.value:
        read = [path for _, text in weighted for path in sources.parse_source(text).paths(CARD.data_dir)]
        files.check_unused(JSON.value, [*read, *filter(None, (TOKENIZER.value, CHECKPOINT.value, TEMPLATE.value))], "--json")
    cards = []
    for _, text in weighted:
        with tempfile.TemporaryDirectory(prefix="spct_jax_card_") as scratch:
            kind = KINDS[CARD.kind] if CARD.kind else sources.kind_of(text)
            records, report = opener(CARD, pathlib.Path(scratch))(text, kind, CARD.on_bad, "records")
            made = card.make(records, report, length=length, prompt_length=prompt_length, most=SAMPLE.value)
        layout = LAYOUTS.get(sources.parse_source(text).layout)
        told = {"licence": layout.licence, "rule": layout.ties} if layout else {"licence": "", "rule": ""}
        cards.append({"source": text, "unit": unit, **told, **made})
    if JSON.value:
        files.write_json(JSON.value, {"sources": cards})
    print("\n\n".join(map(card_text.render, cards)))


def write_dataset(_) -> None:
    """Entry of `python -m spct_jax.data build`."""
    build.check_format(FORMAT.value)
    to, data = paths.parse(TO.value, "--to"), selected()
    build.check_target(to)  # before the source is read, which may take long
    weighted = mixtures.parse(BUILD.source)
    kind = KINDS[BUILD.kind] if BUILD.kind else sources.kind_of(weighted[0][1])
    with tempfile.TemporaryDirectory(prefix="spct_jax_build_") as scratch:
        scratch = pathlib.Path(scratch)
        records, reports = fields.load(data, opener(BUILD, scratch), scratch, {"train": kind})
        found = build.build(
            build.splits_of({name: records[name] for name in SPLITS}),
            to,
            shards=SHARDS.value,
            description=f"Written from {BUILD.source}.",
            dropped=(scratch / "dropped.jsonl").read_bytes(),
        )
    for name, report in reports.items():
        of = f" (of {name})" if len(weighted) > 1 else ""
        print("".join(f"left out: {count:,} {reason}{of}\n" for reason, count in sorted(report.skipped.items())), end="")
    if (to / build.DROPPED).exists():
        print(f"copies and what stands in a benchmark: {to / build.DROPPED}")
    for name, count in found.items():
        print(f"{count:,} records: --source=tfds:{to.name}:{name} --data_dir={to.parent}")
    if len(weighted) > 1:
        parts = [(weight, f"tfds:{to.name}:{build.part(number)}", number) for number, (weight, _) in enumerate(weighted)]
        mixture = " + ".join(f"{weight:.12g}*{source}" for weight, source, number in parts if build.part(number) in found)
        print(f"to train on: --config.data.train='{mixture}' --config.data.data_dir={to.parent}")


def selected() -> DataConfig:
    """What `build` reads, as a run reads it; InputError naming the flag where values do not go together."""
    try:
        fractions = tuple(map(float, SPLIT.value))
    except ValueError:
        raise InputError(f"--split={','.join(SPLIT.value)}: not numbers") from None
    data = DataConfig(
        train=BUILD.source,
        data_dir=BUILD.data_dir,
        fields=tuple(BUILD.fields),
        on_bad=BUILD.on_bad,
        split=fractions,
        deduplicate=DEDUPLICATE.value,
        decontaminate=tuple(DECONTAMINATE.value),
    )
    field_bounds.check(data, "--")
    return data


def refuse_command(name: str, _) -> None:
    """What becomes of a command that is not known, whatever flags stand behind it."""
    raise InputError(f"unknown command {name!r}; use 'build', or none for a data card")


def run(argv: list[str]) -> None:
    """Runs the command that the first argument names, the card if it names none."""
    if argv[1:2] == ["build"]:
        cli.run(write_dataset, BUILD, argv=[argv[0], *argv[2:]])
    elif argv[1:] and not argv[1].startswith("-"):
        cli.run(functools.partial(refuse_command, argv[1]), flags.FlagValues(), argv=argv[:1])
    else:
        cli.run(show_card, CARD, argv=argv)


if __name__ == "__main__":
    interrupts.clean_up()
    run(cli.at_home(sys.argv))
