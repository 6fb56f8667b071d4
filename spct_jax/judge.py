r"""Scores comparisons with a generative reward model: `python -m spct_jax.judge --checkpoint=DIR --input=X --output=Y`.

One JSON line of the output answers one of the input; an interrupted run goes on when the same command is given again.
With `--explain=ID` one verdict is told in full, from the output where it stands there already. See docs/judge.md.
"""

import sys
from typing import Any

from absl import flags

from spct_jax import cli
from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.judging import explain, files, input_lines, principles, resume
from spct_jax.judging.flags import JudgeFlags
from spct_jax.judging.verdicts import Verdict, count
from spct_jax.runtime import distributed
from spct_jax.storage import digests, paths
from spct_jax.storage.files import real_name

FLAGS = flags.FlagValues()
JUDGE = JudgeFlags(FLAGS)
INPUT = flags.DEFINE_string(
    "input", None, "Comparisons, .jsonl or .jsonl.gz; - is standard input.", required=True, flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string("output", None, "Verdicts, .jsonl; - is standard output.", flag_values=FLAGS)
K = flags.DEFINE_integer("k", 8, "Samples per comparison.", flag_values=FLAGS)
K_META = flags.DEFINE_integer("k_meta", 0, "Samples that count, chosen by the meta reward model.", flag_values=FLAGS)
ADAPTIVE = flags.DEFINE_float(
    "adaptive", 0.0, "Stop at a chance of this that all k samples would say otherwise; 0: never.", flag_values=FLAGS
)
PRINCIPLES, EXPORT_PRINCIPLES = JUDGE.principles, JUDGE.export_principles
ON_BAD = flags.DEFINE_enum(
    "on_bad", "fatal", ("skip", "fatal"), "What a bad line does: leave an error record, or stop.", flag_values=FLAGS
)
EXPLAIN = flags.DEFINE_string(
    "explain", None, "Id or line number: tell this one verdict in full, write nothing.", flag_values=FLAGS
)


def check(values: flags.FlagValues) -> None:
    """InputError where values of the flags are wrong whatever the files are; a launcher asks before it waits for chips."""
    JUDGE.check(values)
    if not values[INPUT.name].value:
        raise InputError(f"--{INPUT.name} is needed")
    for flag in (JUDGE.checkpoint, OUTPUT):
        if values[EXPLAIN.name].value is None and not values[flag.name].value:
            raise InputError(f"--{flag.name} is needed")


def read_options() -> dict[str, Any]:
    """Keyword arguments of `Judge.stream`."""
    if bool(K_META.value) != bool(JUDGE.meta_checkpoint.value):
        raise InputError("--k_meta and --meta_checkpoint need each other")
    options = JUDGE.options(k=K.value, k_meta=K_META.value, adaptive=ADAPTIVE.value)
    return options | ({"principles": principles.read(PRINCIPLES.value)} if PRINCIPLES.value else {})


def check_principles(options: dict[str, Any]) -> None:
    """InputError where a file has principles by id, and none of a comparison in the input; standard input is not looked at."""
    given = options.get(PRINCIPLES.name)
    if given is None or isinstance(given, str) or not resume.is_resumable(INPUT.value):
        return
    if not any(line.comparison is not None and line.comparison.id in given for line in input_lines.read_input(INPUT.value)):
        raise InputError(f"--{PRINCIPLES.name}={PRINCIPLES.value}: holds principles of no comparison in {INPUT.value}")


def settings_of(options: dict[str, Any]) -> dict[str, Any]:
    """What verdicts depend on; of principles, where they are from and a digest."""
    settings = JUDGE.settings(options)
    if PRINCIPLES.value:
        settings[PRINCIPLES.name] = f"{real_name(PRINCIPLES.value)} ({digests.of_json(options[PRINCIPLES.name])})"
    return settings


def check_export() -> None:
    """InputError where there is no file that principles could be exported from, or they have no part of their own."""
    target = OUTPUT.value
    JUDGE.check_export(INPUT.value, target)
    if target == input_lines.STREAM or (paths.of(target).exists() and not resume.is_resumable(target)):
        raise InputError(f"--{EXPORT_PRINCIPLES.name}: --output={target} is not a file that can be read again")


def export() -> None:
    """Writes the principles of all verdicts."""
    parts = JUDGE.read_template().parts
    without = principles.export(OUTPUT.value, EXPORT_PRINCIPLES.value, parts)
    print(f"{EXPORT_PRINCIPLES.value}: principles of all verdicts; {count(without, 'verdict')} without any")


def score_one(comparison: Comparison) -> Verdict | InputError:
    """The verdict on one comparison, or why there is none."""
    options = read_options()
    (outcome,) = JUDGE.load().stream([comparison], **options)
    return outcome


def score() -> None:
    """Scores the input and reports on standard output, or on standard error where the verdicts go to the former."""
    check(FLAGS)
    options = read_options()
    check_principles(options)
    if EXPORT_PRINCIPLES.value:
        check_export()
    summary = files.judge_file(
        INPUT.value, OUTPUT.value, JUDGE.load, options=options, settings=settings_of(options), on_bad=ON_BAD.value
    )
    if not distributed.is_first():
        return
    print(summary, file=sys.stderr if OUTPUT.value == input_lines.STREAM else sys.stdout)
    if EXPORT_PRINCIPLES.value:
        export()


def tell() -> None:
    """Prints one verdict in full."""
    check(FLAGS)
    told = explain.explain(INPUT.value, EXPLAIN.value, OUTPUT.value, score_one, JUDGE.checkpoint.value)
    if distributed.is_first():
        print(told)


def main(_) -> None:
    """Entry of `python -m spct_jax.judge`."""
    if INPUT.value == input_lines.STREAM and sys.stdin is None:
        raise InputError("--input=-: standard input is closed")
    if JUDGE.checkpoint.value:  # a verdict that is there can be told without devices
        JUDGE.join()
    distributed.stop_at_once()
    distributed.end_together(score if EXPLAIN.value is None else tell)


if __name__ == "__main__":
    cli.run(main, FLAGS)
