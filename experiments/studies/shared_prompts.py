r"""What of a judge's prompts is computed when they share what they begin with, on files of comparisons.

What: makes the prompts of a template for each comparison in all of its balanced orders, and counts what is computed of them in
three ways: every prompt whole; the template's preamble once for all, as engines do; and beside this the conversation once for
all orders of a comparison, which no engine does. Tokens are those of the prompts without their last, slots what these are
padded to, operations those of the slots by `models.flops`, all per comparison; the one preamble of a run is left out. With
`--timed`, the programs of a judge's engines compute the prompts of so many comparisons in the first two ways, with random
weights.
Hardware: one CPU core, no accelerator.
Time: some seconds per source, and with `--timed` about ten seconds per comparison for Gemma-3 270M.
Expected result: pairs take two fifths of the operations with the preamble once, and a third with the conversation once, too.

    python experiments/studies/shared_prompts.py --tokenizer=gemma-3-270m/tokenizer.model --model=gemma3_270m \
        --source='hh_rlhf:hh-rlhf/harmless-base/*.jsonl.gz' --source=pandalm:testset-v1.json --timed=6
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

import jax
import numpy as np
import tqdm
from absl import flags

from spct_jax import cli, models, sharding
from spct_jax.data import batches
from spct_jax.data.comparison import Comparison
from spct_jax.data.sources import read_comparisons
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.grm import orders
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.models import ModelConfig, flops, sizes
from spct_jax.reporting import markdown
from spct_jax.sampling import SamplingParams, Shape
from spct_jax.sampling.engine_programs import decode_params, engine_programs
from spct_jax.sampling.engine_shape import padded_prompt, prefill_rows, shared

FLAGS = flags.FlagValues()
SOURCE = flags.DEFINE_multi_string("source", None, "Comparisons, such as hh_rlhf:FILES.", required=True, flag_values=FLAGS)
TOKENIZER = flags.DEFINE_string("tokenizer", None, "SentencePiece model.", required=True, flag_values=FLAGS)
MODEL = flags.DEFINE_string("model", "gemma3_270m", "Name of the architecture.", flag_values=FLAGS)
TEMPLATE = flags.DEFINE_string("template", "default", "Name or file of the template.", flag_values=FLAGS)
LONGEST = flags.DEFINE_integer("longest", 4096, "Tokens of the longest prompt; others are left out.", 2, flag_values=FLAGS)
TIMED = flags.DEFINE_integer("timed", 0, "Comparisons of each source whose prompts are computed, too.", 0, flag_values=FLAGS)
ROWS = 16
"""Of the engines whose programs are timed."""

Prompts = list[list[int]]
"""Of one comparison, in all of its orders."""


def read(source: str, prompter: Prompter) -> list[Prompts]:
    """The prompts of each comparison, in as many orders as it has responses."""
    comparisons, report = read_comparisons(source, on_bad="skip")

    def encode(comparison: Comparison) -> Prompts:
        shown = (orders.sample_order(comparison.n, "balanced", 0, comparison.id, sample) for sample in range(comparison.n))
        return [prompter.encode(comparison, order) for order in shown]

    made = [encode(c) for c in tqdm.tqdm(comparisons, "prompts", leave=False) if c.n > 1]
    kept = [prompts for prompts in made if max(map(len, prompts)) <= LONGEST.value]
    print(f"{source}: {len(kept):,} comparisons of {report.read:,} rows")
    return kept


def computed(config: ModelConfig, prompts: Prompts, preamble: int) -> Iterator[tuple[int, int, float]]:
    """(tokens, slots, operations) of a comparison's prompts: whole, behind the preamble, and behind the conversation, too."""
    longest, same = max(map(len, prompts)), len(os.path.commonprefix(prompts))
    for before in (0, preamble):
        slots = padded_prompt(longest, before) - 1 - before
        yield (
            sum(len(prompt) - 1 - before for prompt in prompts),
            len(prompts) * slots,
            flops.prefill(config, len(prompts), slots, before),
        )
    conversation, rest = batches.padded_length(same - preamble), batches.padded_length(longest - same) - 1
    yield (
        same - preamble + sum(len(prompt) - 1 - same for prompt in prompts),
        conversation + len(prompts) * rest,
        flops.prefill(config, 1, conversation, preamble) + flops.prefill(config, len(prompts), rest, preamble + conversation),
    )


def timer(config: ModelConfig, preamble: Sequence[int]) -> Callable[[list[Prompts], bool], float]:
    """What tells the processor seconds, without compiling, in which prompts are computed, behind the preamble or whole."""
    layout = sharding.make_layout()
    params = decode_params(jax.jit(models.init, static_argnums=0)(config, jax.random.key(0)), config, layout)

    def seconds(comparisons: list[Prompts], behind: bool) -> float:
        before, waiting = len(preamble) if behind else 0, {}
        for prompts in comparisons:
            waiting.setdefault(padded_prompt(max(map(len, prompts)), before), []).extend(prompts)
        spent = 0.0
        for max_prompt, prompts in waiting.items():
            rows = prefill_rows(max_prompt, ROWS, 1)
            shape = Shape(max_prompt, 8, ROWS, prefill_rows=rows, preamble=shared(before, max_prompt))
            programs = engine_programs(layout, config, shape, SamplingParams(1.0, (1,)))
            with futures.ThreadPoolExecutor(1) as pool:
                programs.compile_ahead(pool)
            begun, first = time.process_time(), ()
            if shape.preamble:
                first = (programs.preamble(params, np.array([preamble], np.int32), np.array([before], np.int32)),)
            for start in range(0, len(prompts), rows):
                own = [prompt[shape.preamble :] for prompt in prompts[start : start + rows]]
                own += [[0]] * (rows - len(own))
                tokens, lengths, _ = batches.pack_prompts(own, max_prompt - shape.preamble)
                program = programs.follow if first else programs.prefill
                jax.block_until_ready(program(params, tokens, lengths, *first))
            spent += time.process_time() - begun
        return spent

    return seconds


def main(_: list[str]) -> None:
    """Prints a table of what is computed, and with `--timed` one of processor seconds."""
    prompter = Prompter(PromptConfig(TEMPLATE.value), Tokenizer.load(TOKENIZER.value))
    config, preamble = sizes.get(MODEL.value), prompter.preamble
    print(f"{TEMPLATE.value}: a preamble of {len(preamble)} tokens")
    ways, rows, times = ("whole", "preamble once", "conversation once, too"), [], []
    seconds = timer(config, preamble) if TIMED.value else None
    for source in SOURCE.value:
        comparisons = read(source, prompter)
        name = source.split(":")[0]
        found = np.array([list(computed(config, prompts, len(preamble))) for prompts in comparisons]).mean(0)
        for way, (tokens, slots, operations) in zip(ways, found, strict=True):
            share = f"{found[0, 2] / operations:.2f}"
            rows.append([name, way, f"{tokens:,.0f}", f"{slots:,.0f}", f"{operations / 1e9:,.0f}", share])
        if seconds:
            chosen = comparisons[: TIMED.value]
            whole, behind = (seconds(chosen, once) for once in (False, True))
            times.append([name, str(sum(map(len, chosen))), f"{whole:.1f}", f"{behind:.1f}", f"{whole / behind:.2f}"])
    print(markdown.table(["comparisons", "computed", "tokens", "slots", "GFLOP", "times fewer"], rows))
    if times:
        print(markdown.table(["comparisons", "prompts", "whole, s", "preamble once, s", "times less"], times))


if __name__ == "__main__":
    cli.run(main, FLAGS)
