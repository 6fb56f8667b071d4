r"""Measures a judge on a benchmark: `python -m spct_jax.evaluate --checkpoint=DIR --benchmark=NAME --data=PATH --output=DIR`.

Votes are drawn as the judge command draws them, and an interrupted run goes on when the same command is given again. With
`--scores=FILE` in place of a checkpoint everything is computed from recorded votes. See docs/benchmarks.md.
"""

import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from spct_jax import cli
from spct_jax.checkpoints import ModelKind
from spct_jax.data import draws
from spct_jax.errors import InputError
from spct_jax.evaluation import conditions, drawing, examples, matching, measures, score_files
from spct_jax.evaluation import figures as figures_lib
from spct_jax.evaluation.benchmarks import catalogue
from spct_jax.evaluation.benchmarks.base import Benchmark, Item, as_pairs
from spct_jax.evaluation.benchmarks.reading import DataReport
from spct_jax.evaluation.measures import GREEDY, SAMPLED
from spct_jax.evaluation.recorded import Recorded
from spct_jax.judging import principles
from spct_jax.judging.flags import JudgeFlags
from spct_jax.judging.verdicts import count
from spct_jax.reporting import benchmark_report, result_formats
from spct_jax.reporting.markdown import percent
from spct_jax.reporting.published import OVERALL
from spct_jax.runtime import distributed
from spct_jax.storage import files, local_copies, paths
from spct_jax.storage.paths import Path

FLAGS = flags.FlagValues()
JUDGE = JudgeFlags(FLAGS)
BENCHMARK = flags.DEFINE_string(
    "benchmark", None, f"One of {', '.join(catalogue.BENCHMARKS)}.", required=True, flag_values=FLAGS
)
DATA = flags.DEFINE_string(
    "data", None, "The benchmark's published files; can be left out with --scores that say what is right.", flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string("output", None, "Directory of votes and report.", required=True, flag_values=FLAGS)
SCORES = flags.DEFINE_string("scores", None, "Recorded votes, .jsonl or .jsonl.gz, in place of a judge.", flag_values=FLAGS)
K = flags.DEFINE_list(
    "k", None, "Numbers of votes; default: 1,8,32, or of recorded votes all that there are.", flag_values=FLAGS
)
K_META = flags.DEFINE_list(
    "k_meta",
    None,
    "Numbers of votes kept by the meta reward model, each for every k above it; default: half of each k.",
    flag_values=FLAGS,
)
GREEDY_TOO = flags.DEFINE_bool("greedy", True, "Judge at temperature 0, too, in two orders.", flag_values=FLAGS)
BY_PAIRS = flags.DEFINE_bool(
    "by_pairs",
    None,
    "Show items of more than two responses in pairs, not all responses at once; default: as is usual for the benchmark.",
    flag_values=FLAGS,
)
BESIDE = flags.DEFINE_list(
    "beside", None, "Outputs of this command on other benchmarks, to report together in the paper's Table 2.", flag_values=FLAGS
)
REFERENCE = flags.DEFINE_bool(
    "reference",
    False,
    "Show the judge the reference answers in the data; its template must have a place.",
    flag_values=FLAGS,
)
LIMIT = flags.DEFINE_integer("limit", 0, "Judge so many items only, a sample by --seed; 0: all.", flag_values=FLAGS)
ON_BAD = flags.DEFINE_enum(
    "on_bad",
    "fatal",
    ("skip", "fatal"),
    "What a bad row of the data does: is left out and counted, or stops.",
    flag_values=FLAGS,
)
LARGEST_K = 65536
LINES_WRITTEN = (f"{GREEDY}.jsonl", f"{SAMPLED}.jsonl", drawing.COMPARISONS, score_files.SCORES, result_formats.JUDGEBENCH)
"""JSON Lines that may be in the output."""
REPORTED = (*result_formats.NAMES, *benchmark_report.NAMES)
"""What is written of any votes, recorded ones or not."""
DEFAULT_K = [1, 8, 32]


def check(values: flags.FlagValues) -> None:
    """As of the judge command."""
    JUDGE.check(values)
    ks, k_metas = (read_numbers(values[flag.name]) for flag in (K, K_META))
    if not values[SCORES.name].value:
        measures.check_kept(ks or DEFAULT_K, k_metas)


def read_numbers(flag: flags.FlagHolder | flags.Flag) -> list[int]:
    """The positive integers of a flag, ascending; none where it is not given."""
    try:
        numbers = sorted({int(text) for text in flag.value or ()})
    except ValueError:
        numbers = [0]
    if numbers and not 1 <= numbers[0] <= numbers[-1] <= LARGEST_K:
        raise InputError(f"--{flag.name}={','.join(flag.value)}: not integers from 1 to {LARGEST_K}, as in 1,8,32")
    return numbers


def check_flags() -> None:
    """Raises InputError where flags do not go together."""
    if bool(JUDGE.checkpoint.value) == bool(SCORES.value):
        raise InputError("give either --checkpoint or --scores")
    if not SCORES.value and not DATA.value:
        raise InputError("--data is needed")
    if K_META.value and not SCORES.value and not JUDGE.meta_checkpoint.value:
        raise InputError("--k_meta needs --meta_checkpoint")
    if JUDGE.meta_checkpoint.value and SCORES.value:
        raise InputError("--meta_checkpoint goes with --checkpoint; recorded votes bring their meta rewards")
    for flag in (JUDGE.principles, JUDGE.export_principles, REFERENCE):
        if flag.value and SCORES.value:
            raise InputError(f"--{flag.name} goes with --checkpoint")
    if SCORES.value and BY_PAIRS.value is not None:
        raise InputError("--by_pairs goes with --checkpoint; recorded votes are on items or on pairs as their ids say")
    if LIMIT.value < 0:
        raise InputError(f"--limit: {LIMIT.value} is not a number of items")
    if LIMIT.value and not DATA.value:
        raise InputError("--limit needs --data")


def check_judge(benchmark: Benchmark) -> None:
    """InputError where the judge cannot do what is asked of it; it is not loaded for that."""
    kind = JUDGE.kind
    if benchmark.responses == 1 and (kind is ModelKind.PAIRRM or (kind is None and JUDGE.chooses)):
        raise InputError(f"--benchmark={benchmark.name}: a judge that compares responses has nothing to say of single ones")
    for flag in (JUDGE.principles, JUDGE.export_principles, REFERENCE):
        if flag.value and kind is not None:
            raise InputError(
                f"--{flag.name} is for a judge that writes verdicts, and {JUDGE.checkpoint.value} is a {kind} model"
            )
    if REFERENCE.value and (template := JUDGE.read_template()).reference is None:
        raise InputError(f"--reference: template {template.name!r} has no place for a reference answer, as `reference` has")
    if JUDGE.principles.value and not (template := JUDGE.read_template()).principles:
        raise InputError(f"--principles: template {template.name!r} has no part for principles")
    if JUDGE.export_principles.value:
        output = paths.parse(OUTPUT.value, "--output")
        JUDGE.check_export(DATA.value, *(output / name for name in LINES_WRITTEN))


def check_output(benchmark: Benchmark, output: Path) -> None:
    """InputError where the output would take the place of what is read, or be read as data when the command runs again."""
    read = [path for path in (DATA.value, SCORES.value, JUDGE.principles.value, JUDGE.template.value) if path]
    read = [path for path in read if paths.of(path).is_file()]
    for name in REPORTED if SCORES.value else (*LINES_WRITTEN, *REPORTED):
        files.check_unused(output / name, read, "--output")
    data = f"{files.real_name(DATA.value or '')}/"
    if benchmark.by_ending and DATA.value and f"{files.real_name(output)}/".startswith(data):
        raise InputError(f"--output={OUTPUT.value}: lies in --data={DATA.value}, all files of which are the benchmark's")


def shows_pairs(benchmark: Benchmark) -> bool:
    """Whether a judge is shown the responses of an item two at a time."""
    return benchmark.by_pairs if BY_PAIRS.value is None else BY_PAIRS.value


def read_items(benchmark: Benchmark, report: DataReport) -> tuple[list[Item], int]:
    """The items that are judged, and how many the benchmark has; the report knows the ids of the others."""
    everything = benchmark.read(local_copies.of_directory(paths.parse(DATA.value, "--data")), ON_BAD.value, report)
    picked = draws.sample(JUDGE.seed.value, "benchmark", len(everything), LIMIT.value)
    items = [everything[index] for index in picked]
    names = [{item.id for item in (*group, *as_pairs(group))} for group in (everything, items)]
    report.left_out |= names[0] - names[1]
    return items, len(everything)


def as_shown(benchmark: Benchmark, items: Sequence[Item]) -> list[Item]:
    """The items as a judge is shown them: perhaps in pairs, with reference answers, or to be judged by given principles."""
    if REFERENCE.value:
        items = conditions.with_references(items, "--reference")
    if shows_pairs(benchmark):
        if whole := next((item for item in items if item.n > 2 and not item.pairs), None):
            raise InputError(f"--by_pairs: item {whole.id!r} has no single best response and so no pairs")
        items = as_pairs(items)
    if JUDGE.principles.value:
        path = JUDGE.principles.value
        items = conditions.with_principles(items, principles.read(path), path)
    return list(items)


def draw(output: Path, items: Sequence[Item], most: int) -> tuple[dict[str, list[Recorded]], dict[str, int]]:
    """Draws all votes; also says how many items have none, by reason."""
    load, guided = functools.cache(JUDGE.load), bool(JUDGE.meta_checkpoint.value)
    passes = {SAMPLED: JUDGE.options(k=most, k_meta=most if guided else 0)}
    if GREEDY_TOO.value and JUDGE.draws:
        # Balanced whatever --order is: two random orders of two responses are the same every other time.
        passes = {GREEDY: JUDGE.options(k=2, temperature=0.0, order="balanced")} | passes
    files.make_directory(output)
    distributed.from_first(lambda: drawing.keep_comparisons(output, items))
    found, unjudged = {}, {}
    for name, options in passes.items():
        found[name], unjudged = drawing.draw(output, name, items, load, options, JUDGE.settings(options))
    if distributed.is_first():
        score_files.write(output / score_files.SCORES, found, items)
        if target := JUDGE.export_principles.value:
            without = principles.export(output / f"{SAMPLED}.jsonl", target, JUDGE.read_template().parts)
            print(f"{target}: principles of all verdicts; {count(without, 'verdict')} without any")
    return found, unjudged


def about(benchmark: Benchmark, items: Sequence[Item], total: int, most: int | None) -> dict[str, str]:
    """What was measured, and how, by names for people."""
    named = {"benchmark": benchmark.title, "metric": benchmark.metric, "data": DATA.value or "as the scores say"}
    named |= {"licence of the data": benchmark.licence, "items": f"{len(items):,}"}
    if total > len(items):
        named["items"] += f" of {total:,}, a sample by seed {JUDGE.seed.value}"
    if not SCORES.value and shows_pairs(benchmark):
        named["items"] += "; those of more than two responses are judged in pairs"
    if alike := sum(item.has_equal_responses for item in items):
        named["items with equal responses"] = f"{alike:,}; a judge can only guess or tie"
    if SCORES.value:
        return named | {"scores": SCORES.value}
    sampling = {name: value for name, value in JUDGE.options(k=most).items() if name != JUDGE.batch_size.name}
    paths = (JUDGE.checkpoint, JUDGE.meta_checkpoint, JUDGE.principles)
    named |= {flag.name.replace("_", " "): flag.value for flag in paths if flag.value}
    if REFERENCE.value:
        named["reference answers"] = f"shown, of {sum(item.reference is not None for item in items):,} items"
    named["template"] = JUDGE.template.value or "the checkpoint's own"
    return named | {"votes": ", ".join(f"{name}={value}" for name, value in sampling.items())}


def critiques(output: Path, wanted: set[str]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Ids and verdicts, with all texts, of the items with these ids; none of recorded votes."""
    return () if SCORES.value else drawing.verdicts(output, SAMPLED, wanted)


def read_beside(benchmark: Benchmark) -> dict[str, dict[str, float]]:
    """The columns of the paper's Table 2 that the outputs of `--beside` give; none without the flag."""
    columns = {}
    for directory in BESIDE.value or ():
        path = paths.parse(directory, "--beside") / "figures.json"
        found = files.read_json(path)
        column = benchmark_report.overall_column(found, str(path))
        if (named := found["benchmark"]) in columns:
            raise InputError(f"--beside: {path} holds figures of {named}, and so does one before it")
        columns[named] = column
    if columns and benchmark.name not in OVERALL:
        raise InputError(f"--beside: the paper's Table 2 has {', '.join(OVERALL)} and not {benchmark.name}")
    return columns


def summary(figures: Mapping[str, Any]) -> str:
    """The headline of every way of judging, for the terminal."""
    lines = []
    for name, found in figures["measures"].items():
        cells = [
            f"{rule} {percent(figure['value'])}"
            for rule in benchmark_report.RULES
            if (figure := measures.headline(found, rule)) is not None
        ]
        rates = f"ties {percent(found['tie_rate'])}, malformed {percent(found['malformed_rate'])}"
        lines.append(f"{name}: {', '.join(cells) or 'no figure'}; {rates}")
    lost = [f"{count(number, 'item')} could not be judged: {reason}" for reason, number in figures["unjudged"].items()]
    lines += [*lost, *benchmark_report.nothing_read(figures)]
    return "\n".join([f"{figures['title']}, items: {figures['about']['items']}; in %", *lines])


def main(_) -> None:
    """Entry of `python -m spct_jax.evaluate`."""
    JUDGE.join()
    distributed.stop_at_once()
    distributed.end_together(evaluate)


def evaluate() -> None:
    """Draws the votes that are not there, on all processes, and reports on the first, which alone reads recorded votes."""
    if SCORES.value:
        distributed.from_first(_evaluate)
    else:
        _evaluate()


def _evaluate() -> None:
    benchmark = catalogue.get(BENCHMARK.value)
    check_flags()
    ks, k_metas = read_numbers(K), read_numbers(K_META)
    if not SCORES.value:
        check_judge(benchmark)
        measures.check_kept(ks or DEFAULT_K, k_metas)
        ks = (ks or DEFAULT_K) if JUDGE.draws else [1]
    output, report = paths.parse(OUTPUT.value, "--output"), DataReport()
    check_output(benchmark, output)
    beside = read_beside(benchmark)
    items, total = read_items(benchmark, report) if DATA.value else (None, 0)
    if SCORES.value:
        votes, unjudged, origin = score_files.read(SCORES.value), {}, SCORES.value
        if not GREEDY_TOO.value:
            votes.pop(GREEDY, None)
    else:
        votes, unjudged = draw(output, as_shown(benchmark, items), max(ks))
        origin = str(output)
    if not distributed.is_first():
        return
    if items is None:
        answers = {name: matching.stand_alone(benchmark, found, origin) for name, found in votes.items()}
    else:
        answers = {name: matching.join(items, found, origin, report.left_out) for name, found in votes.items()}
    told = figures_lib.apart(answers[SAMPLED])
    figures = {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "quantity": benchmark.quantity,
        "rules": benchmark.rules,
        "about": about(benchmark, [answer.item for answer in answers[SAMPLED]], total, max(ks, default=None)),
        "unjudged": unjudged,
        "skipped": report.skipped,
        **measures.compute(benchmark, answers, ks, k_metas),
    }
    if beside:
        beside |= {benchmark.name: benchmark_report.overall_column(figures, str(output))}
    figures["beside"] = beside
    files.make_directory(output)
    texts = functools.partial(critiques, output)
    benchmark_report.write(output, figures, examples.choose(told, texts))
    model = pathlib.PurePath(JUDGE.checkpoint.value or SCORES.value).name
    result_formats.write(output, told, model, texts, JUDGE.kind if JUDGE.checkpoint.value else None)
    print(summary(figures))
    print(f"figures.json, report.md and report.html are in {OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main, FLAGS)
