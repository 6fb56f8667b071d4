r"""What of a judge's prompts is computed when they share what they begin with, on files of comparisons.

What: makes the prompts of a template for each comparison in all of its balanced orders, and counts what is computed of them in
three ways: every prompt whole; the template's preamble once for all; and beside this the conversation once for all orders of a
comparison where that is worth it, as a judge's engines do. Tokens are those of the prompts without their last, slots what these
are padded to, operations those of the slots by `models.flops`, all per comparison; the one preamble of a run is left out. With
`--timed`, the programs of a judge's engines compute the prompts of so many comparisons in these ways, with random weights.
Hardware: one CPU core, no accelerator.
Time: some seconds per source, and with `--timed` about ten seconds per comparison for Gemma-3 270M.
Expected result: pairs take two fifths of the operations with the preamble once, and a third with the conversation once, too.

    python experiments/studies/shared_prompts.py --tokenizer=gemma-3-270m/tokenizer.model --model=gemma3_270m \
        --source='hh_rlhf:hh-rlhf/harmless-base/*.jsonl.gz' --source=pandalm:testset-v1.json --timed=6
"""

import collections
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import NamedTuple

import jax
import numpy as np
import tqdm
from absl import flags

from spct_jax import cli, models, sharding
from spct_jax.data.comparison import Comparison
from spct_jax.data.sources import read_comparisons
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.grm import orders
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.models import ModelConfig, flops, sizes
from spct_jax.reporting import markdown
from spct_jax.sampling import Request, SamplingParams, Shape, Usage
from spct_jax.sampling.engine_params import decode_params
from spct_jax.sampling.engine_programs import engine_programs
from spct_jax.sampling.engine_shape import padded_prompt
from spct_jax.sampling.prefilling import Prefiller, families_of

FLAGS = flags.FlagValues()
SOURCE = flags.DEFINE_multi_string("source", None, "Comparisons, such as hh_rlhf:FILES.", required=True, flag_values=FLAGS)
TOKENIZER = flags.DEFINE_string("tokenizer", None, "SentencePiece model.", required=True, flag_values=FLAGS)
MODEL = flags.DEFINE_string("model", "gemma3_270m", "Name of the architecture.", flag_values=FLAGS)
TEMPLATE = flags.DEFINE_string("template", "default", "Name or file of the template.", flag_values=FLAGS)
LONGEST = flags.DEFINE_integer("longest", 4096, "Tokens of the longest prompt; others are left out.", 2, flag_values=FLAGS)
TIMED = flags.DEFINE_integer("timed", 0, "Comparisons of each source whose prompts are computed, too.", 0, flag_values=FLAGS)
ROWS = 16
"""Of the engines whose programs are timed."""

WAYS = ("whole", "preamble once", "conversation once, too")


class Prompts(NamedTuple):
    """Of one comparison, in all of its orders."""

    tokens: list[list[int]]
    stem: int
    """Tokens that all of them begin with."""


def read(source: str, prompter: Prompter) -> list[Prompts]:
    """The prompts of each comparison, in as many orders as it has responses."""
    comparisons, report = read_comparisons(source, on_bad="skip")

    def encode(comparison: Comparison) -> Prompts:
        shown = (orders.sample_order(comparison.n, "balanced", 0, comparison.id, sample) for sample in range(comparison.n))
        made = [prompter.encode(comparison, order) for order in shown]
        return Prompts(made, prompter.stem(comparison, prompter.template_of(comparison), made[0]))

    made = [encode(c) for c in tqdm.tqdm(comparisons, "prompts", leave=False) if c.n > 1]
    kept = [prompts for prompts in made if max(map(len, prompts.tokens)) <= LONGEST.value]
    print(f"{source}: {len(kept):,} comparisons of {report.read:,} rows")
    return kept


def shape_of(prompts: Prompts, preamble: int, way: str) -> Shape:
    """Of the engine that draws for a comparison."""
    before, n = 0 if way == "whole" else preamble, len(prompts.tokens)
    siblings = n if way == WAYS[-1] else 1
    max_prompt = padded_prompt(max(map(len, prompts.tokens)), before)
    return Shape.of_stream(max_prompt, 8, ROWS, 4, preamble=before, siblings=siblings)


def computed(config: ModelConfig, prompts: Prompts, preamble: int, way: str) -> tuple[int, int, float]:
    """(tokens, slots, operations) of what is computed of a comparison's prompts, which begin with so long a preamble."""
    shape, counts, stems = shape_of(prompts, preamble, way), np.zeros(3), {}
    for prompt in prompts.tokens:
        split = shape.split(len(prompt), shape.preamble, prompts.stem)
        begun, prefix = split.shared, split.shared
        if split.stem:
            operations = flops.prefill(config, 1, split.stem, split.shared)
            stems[split] = prompts.stem - split.shared, split.stem, operations
            begun, prefix = prompts.stem, shape.max_prompt - 1
        counts += len(prompt) - 1 - begun, split.own, flops.prefill(config, 1, split.own, prefix)
    return tuple(counts + sum(map(np.array, stems.values())))


def timer(config: ModelConfig, preamble: Sequence[int]) -> Callable[[list[Prompts], str], float]:
    """What tells the processor seconds, without compiling, in which an engine computes prompts in one of the ways."""
    layout = sharding.make_layout()
    params = decode_params(jax.jit(models.init, static_argnums=0)(config, jax.random.key(0)), config, layout)

    def seconds(comparisons: list[Prompts], way: str) -> float:
        waiting, spent = {}, 0.0
        for prompts in comparisons:
            requests = [Request(None, prompt, None, collections.deque(), stem=prompts.stem) for prompt in prompts.tokens]
            waiting.setdefault(shape_of(prompts, len(preamble), way), []).extend(requests)
        for shape, requests in waiting.items():
            programs = engine_programs(layout, config, shape, SamplingParams(1.0, (1,)))
            prefiller = Prefiller(layout, params, programs.trunks, shape, preamble, Usage())
            for request in requests:
                prefiller.admit(request)
            for split in dict.fromkeys(request.split for request in requests):
                siblings = shape.siblings if split.stem else 1
                families, most = families_of(requests, split, siblings), shape.prefill_rows // siblings
                with futures.ThreadPoolExecutor(1) as pool:
                    programs.compile_ahead(pool, shape.levels(split))
                begun = time.process_time()
                for start in range(0, len(families), most):
                    jax.block_until_ready(prefiller.compute([families[start : start + most]])[0])
                spent += time.process_time() - begun
        return spent

    return seconds


def main(_: list[str]) -> None:
    """Prints a table of what is computed, and with `--timed` one of processor seconds."""
    prompter = Prompter(PromptConfig(TEMPLATE.value), Tokenizer.load(TOKENIZER.value))
    config, preamble = sizes.get(MODEL.value), prompter.preamble
    print(f"{TEMPLATE.value}: a preamble of {len(preamble)} tokens")
    rows, times = [], []
    seconds = timer(config, preamble) if TIMED.value else None
    for source in SOURCE.value:
        comparisons = read(source, prompter)
        name = source.split(":")[0]
        found = {way: np.mean([computed(config, p, len(preamble), way) for p in comparisons], 0) for way in WAYS}
        for way, (tokens, slots, operations) in found.items():
            share = f"{found[WAYS[0]][2] / operations:.2f}"
            rows.append([name, way, f"{tokens:,.0f}", f"{slots:,.0f}", f"{operations / 1e9:,.0f}", share])
        if seconds:
            chosen = comparisons[: TIMED.value]
            spent = [seconds(chosen, way) for way in WAYS]
            times.append([name, str(sum(len(p.tokens) for p in chosen)), *(f"{each:.1f}" for each in spent)])
    print(markdown.table(["comparisons", "computed", "tokens", "slots", "GFLOP", "times fewer"], rows))
    if times:
        print(markdown.table(["comparisons", "prompts", *(f"{way}, s" for way in WAYS)], times))


if __name__ == "__main__":
    cli.run(main, FLAGS)
