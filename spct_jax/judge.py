r"""Scores comparisons with a generative reward model: `python -m spct_jax.judge --checkpoint=DIR --input=X --output=Y`.

One JSON line of the output answers one of the input; an interrupted run goes on when the same command is given again.
With `--explain=ID` one verdict is told in full, from the output where it stands there already. See docs/judge.md.
"""

import os
import pathlib
import sys
from typing import Any

from absl import flags

from spct_jax import checkpoints, cli, field_bounds, sharding
from spct_jax.data.comparison import Comparison
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.judging import explain, files, input_lines
from spct_jax.judging.judge import Judge
from spct_jax.judging.options import MODES, Options
from spct_jax.judging.verdicts import Verdict
from spct_jax.sharding.config import STRATEGIES, MeshConfig

FLAGS = flags.FlagValues()
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Model directory of the judge, of this library or Hugging Face's.", flag_values=FLAGS
)
INPUT = flags.DEFINE_string(
    "input", None, "Comparisons, .jsonl or .jsonl.gz; - is standard input.", required=True, flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string("output", None, "Verdicts, .jsonl; - is standard output.", flag_values=FLAGS)
K = flags.DEFINE_integer("k", 8, "Samples per comparison.", flag_values=FLAGS)
TEMPLATE = flags.DEFINE_string(
    "template", None, "Wording of the task, by name or file; default: the checkpoint's own.", flag_values=FLAGS
)
K_META = flags.DEFINE_integer("k_meta", 0, "Samples that count, chosen by the meta reward model.", flag_values=FLAGS)
META_CHECKPOINT = flags.DEFINE_string("meta_checkpoint", None, "Model directory of the meta reward model.", flag_values=FLAGS)
TEMPERATURE = flags.DEFINE_float("temperature", 0.5, "Of sampling; 0, or less than 1e-5, is greedy.", flag_values=FLAGS)
TOP_K = flags.DEFINE_integer("top_k", 0, "Draw from so many likeliest tokens only; 0 for all.", flag_values=FLAGS)
TOP_P = flags.DEFINE_float("top_p", 1.0, "Draw from the likeliest tokens of this total probability only.", flag_values=FLAGS)
SEED = flags.DEFINE_integer("seed", 0, "Of samples and orders.", flag_values=FLAGS)
ORDER = flags.DEFINE_enum(
    "order", "balanced", ("balanced", "random"), "In which orders the responses are shown.", flag_values=FLAGS
)
MODE = flags.DEFINE_enum(
    "mode",
    "scores",
    MODES,
    "Scores of every response, or an LLM judge's choice of one, counted or weighted.",
    flag_values=FLAGS,
)
ADAPTIVE = flags.DEFINE_float(
    "adaptive", 0.0, "Stop at a chance of this that all k samples would say otherwise; 0: never.", flag_values=FLAGS
)
MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 1024, "Longest critique, in tokens.", flag_values=FLAGS)
MAX_PROMPT = flags.DEFINE_integer(
    "max_prompt",
    None,
    "Longest prompt, in tokens; a longer one is an error. Default: 8192, or what the model has.",
    flag_values=FLAGS,
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Rows of prompts at a time; default: 16.", flag_values=FLAGS)
CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices", 1, "Devices to split the CPU into, where there is nothing else.", flag_values=FLAGS
)
STRATEGY = flags.DEFINE_enum(
    "strategy",
    "data",
    [s for s in STRATEGIES if s != "multislice"],
    "What is split over the devices; see docs/judge.md.",
    flag_values=FLAGS,
)
TENSOR = flags.DEFINE_integer("tensor", 1, "Devices that share the heads of a layer.", flag_values=FLAGS)
ON_BAD = flags.DEFINE_enum(
    "on_bad", "fatal", ("skip", "fatal"), "What a bad line does: leave an error record, or stop.", flag_values=FLAGS
)
EXPLAIN = flags.DEFINE_string(
    "explain", None, "Id or line number: tell this one verdict in full, write nothing.", flag_values=FLAGS
)


def read_layout() -> sharding.Layout:
    """The devices as the flags arrange them; the first use of JAX."""
    mesh = MeshConfig(cpu_devices=CPU_DEVICES.value, strategy=STRATEGY.value, tensor=TENSOR.value)
    field_bounds.check(mesh, "--")
    sharding.use_devices(mesh)
    return sharding.make_layout(mesh)


def load() -> Judge:
    """The judge that the flags name."""
    policys = TEMPLATE.value or ""
    templates = PromptConfig(template=policys, single_template=policys, meta_template="", choice_template=policys)
    return Judge.load(CHECKPOINT.value, META_CHECKPOINT.value, mesh=read_layout(), prompt=templates)


def read_options() -> dict[str, Any]:
    """Keyword arguments of `Judge.stream`."""
    if bool(K_META.value) != bool(META_CHECKPOINT.value):
        raise InputError("--k_meta and --meta_checkpoint need each other")
    for flag in (CHECKPOINT, META_CHECKPOINT):
        if flag.value and not pathlib.Path(flag.value).is_dir():
            raise InputError(f"--{flag.name}={flag.value}: no such directory")
    given = (K, K_META, TEMPERATURE, TOP_K, TOP_P, SEED, ORDER, MODE, ADAPTIVE, MAX_NEW_TOKENS, MAX_PROMPT, BATCH_SIZE)
    options = {flag.name: flag.value for flag in given if flag.value is not None}
    try:
        checked = Options(**options)
    except InputError as error:
        raise InputError(f"--{error}") from None
    for flag in (CHECKPOINT, META_CHECKPOINT):
        if flag.value:
            checked.for_model(checkpoints.read_architecture(flag.value))
    return options


def settings_of(options: dict[str, Any]) -> dict[str, Any]:
    """What a verdict depends on; batch size and devices change the speed and no more than the last bits."""
    where = {flag.name: flag.value and os.path.realpath(flag.value) for flag in (CHECKPOINT, META_CHECKPOINT)}
    where |= {TEMPLATE.name: TEMPLATE.value}
    return where | {name: value for name, value in options.items() if name != BATCH_SIZE.name}


def score_one(comparison: Comparison) -> Verdict | InputError:
    """The verdict on one comparison, or why there is none."""
    options = read_options()
    (outcome,) = load().stream([comparison], **options)
    return outcome


def score() -> None:
    """Scores the input and reports on standard output, or on standard error where the verdicts go to the former."""
    for flag in (CHECKPOINT, OUTPUT):
        if not flag.value:
            raise InputError(f"--{flag.name} is needed")
    options = read_options()
    summary = files.judge_file(
        INPUT.value, OUTPUT.value, load, options=options, settings=settings_of(options), on_bad=ON_BAD.value
    )
    print(summary, file=sys.stderr if OUTPUT.value == input_lines.STREAM else sys.stdout)


def main(_) -> None:
    """Entry of `python -m spct_jax.judge`."""
    if INPUT.value == input_lines.STREAM and sys.stdin is None:
        raise InputError("--input=-: standard input is closed")
    if EXPLAIN.value is None:
        score()
    else:
        print(explain.explain(INPUT.value, EXPLAIN.value, OUTPUT.value, score_one, CHECKPOINT.value))


if __name__ == "__main__":
    cli.run(main, FLAGS)
