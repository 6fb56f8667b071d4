r"""How many slots of an update hold no token, with one shape and with length buckets, on files of preferences.

What: reads each source, makes the prompts of the default template (each comparison in a random order of its responses) and what
the baselines read, chooses buckets as a stage does (`training.bucket_choice`) and puts the batches of some steps into
micro-batches as training does (`training.buckets.arrange`), for the batches of the paper's settings on Gemma-2 2B. For each
stage it prints the padding, and padded over real slots, at one shape (`data.max_prompt` and `data.max_completion` of those
settings; of the baselines the longest that there are), at one that is no larger than the lengths need, and in buckets, and how
many these are. In buckets the preamble of a template is computed once a step; the last column says how many slots are computed
then, of those that complete prompts take in buckets of their own. Buckets of RL are chosen from a first step, and tried on
completions that are `--longer` times as long, too. `--fewer` divides the numbers of micro-batches. With `--timed` an update
of a small model is timed as well, see `times`.
Hardware: one CPU core, no accelerator.
Time: some seconds per source, and with `--timed=8` some minutes more.
Expected result: in buckets at most 20 % in every stage of pairs.
Data: no public set has verdicts in this form, so the lengths of verdicts and critiques are drawn: log-normal, with a median and
a spread that can be set, from 60 to 1,024 tokens. `--rollouts` takes them from a run instead (its `rl/rollouts/*.jsonl`).

    python experiments/studies/padding.py --source='hh_rlhf:hh-rlhf/harmless-base/*.jsonl.gz' --source=pandalm:testset-v1.json
"""

import functools
import glob
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import tqdm
from absl import flags
from bench_grpo import MODEL

from spct_jax import cli, models, sharding
from spct_jax import config as config_lib
from spct_jax.checkpoints import train_state
from spct_jax.data import batches, draws
from spct_jax.data.jsonl import read_jsonl
from spct_jax.data.sources import read_comparisons
from spct_jax.data.tokenizer import Tokenizer, train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import DEFAULT_PROMPT
from spct_jax.grm.prompts import Prompter
from spct_jax.grm.template import Template
from spct_jax.models import flops, sizes
from spct_jax.reporting import markdown
from spct_jax.reward_models import bradley_terry, cloud
from spct_jax.rounding import ceil_div
from spct_jax.sampling import engine_shape
from spct_jax.sharding.config import MeshConfig
from spct_jax.training import bucket_choice, buckets, experience, optimizers, preference, sft
from spct_jax.training import cloud as cloud_stage
from spct_jax.training.buckets import Bucket
from spct_jax.training.config import OptimizerConfig
from spct_jax.training.micro_batches import Batch

FLAGS = flags.FlagValues()
SOURCE = flags.DEFINE_multi_string("source", None, "Comparisons, such as hh_rlhf:FILES.", required=True, flag_values=FLAGS)
TOKENIZER = flags.DEFINE_string(
    "tokenizer", "", "SentencePiece model; empty: one of 8,000 pieces is trained.", flag_values=FLAGS
)
ROLLOUTS = flags.DEFINE_string("rollouts", "", "Files of rollouts whose completions have the lengths.", flag_values=FLAGS)
MEDIAN = flags.DEFINE_integer("median", 230, "Median length of a completion, in tokens.", 1, flag_values=FLAGS)
SPREAD = flags.DEFINE_float("spread", 0.5, "Standard deviation of the logarithm of lengths.", 0.0, 2.0, flag_values=FLAGS)
LONGER = flags.DEFINE_float("longer", 1.3, "How many times longer completions of RL become.", 0.1, 10.0, flag_values=FLAGS)
BUCKETS = flags.DEFINE_integer("buckets", 24, "Most shapes, the largest among them.", 2, 64, flag_values=FLAGS)
FEWER = flags.DEFINE_integer("fewer", 1, "Divides the numbers of micro-batches.", 1, 1024, flag_values=FLAGS)
TIMED = flags.DEFINE_integer("timed", 0, "Rows of an update of a small model that is timed, too.", 0, flag_values=FLAGS)
STAGES = {
    "sft, rows of one": (1, 256, 16),
    "sft, rows of two": (2, 128, 16),
    "rft, rows of one": (1, 1024, 64),
    "rl": (4, 128, 8),
    "meta_rm": (3, 176, 11),
    "btrm": (2, 512, 32),
    "pairrm": (1, 512, 32),
    "cloud": (2, 512, 32),
}
"""Completions of a prompt, rows of a step and its micro-batches."""
STEPS = 20
ROWS_AT_ONCE = 4
"""Of the update that is timed, in each micro-batch; fewer where there would be less than four micro-batches."""
TIMINGS = 1


class Prompts(NamedTuple):
    """Tokens of a prompt for each of N comparisons."""

    own: np.ndarray
    """Without the preamble."""
    shared: np.ndarray
    """Those of the preamble, 0 where it is not computed once."""

    @property
    def complete(self) -> np.ndarray:
        """With the preamble."""
        return self.own + self.shared

    def without_preamble(self) -> "Prompts":
        """The same where each is computed completely."""
        return Prompts(self.complete, 0 * self.shared)


class Read(NamedTuple):
    """Tokens of what is read of N comparisons of two responses."""

    prompts: Prompts
    """[N]: of the default template."""
    metas: Prompts
    """[N]: of the meta template."""
    conversations: Prompts
    """[N]: the conversation alone, as Bradley-Terry and PairRM read it."""
    stems: Prompts
    """[N]: what the prompts of CLoud, with one response each, have in common."""
    rests: np.ndarray
    """[N 2]: the rest of each."""
    responses: np.ndarray
    """[N 2]: each response as an answer."""


def slots_of(
    prompts: Prompts, completions: np.ndarray, table: Sequence[Bucket], shape: tuple[int, int, int]
) -> tuple[float, int]:
    """(share of the slots of some steps that hold no token, slots that are computed in all, the preambles' included).

    Args:
      prompts: see there.
      completions: of each, the tokens of its completions together.
      table: buckets, the last of which has complete prompts.
      shape: as in `STAGES`.
    """
    (G, rows, micro_batches), tokens, computed = shape, 0, 0
    for step in range(1, STEPS + 1):
        drawn = np.array(draws.order(0, "padding", len(prompts.own), step, rows))
        order, chosen = buckets.arrange(prompts.own[drawn], completions[drawn], table, G, micro_batches)
        for m, bucket in enumerate(chosen):
            here = drawn[order[m::micro_batches]]
            lengths = (prompts.complete if bucket == table[-1] else prompts.own)[here]
            tokens += (lengths - 1).sum() + completions[here].sum()
            computed += lengths.size * buckets.slots(bucket, G)
    return 1 - tokens / computed, computed + STEPS * int(prompts.shared.max())


def read(source: str, rng: np.random.Generator) -> Read:
    """What is read of each comparison of a source; those that have not two responses are left out."""
    comparisons, report = read_comparisons(source, on_bad="skip", need_best=True)
    comparisons = [c for c in comparisons if c.n == 2]
    print(f"{source}: {len(comparisons):,} comparisons of {report.read:,} rows")
    texts = [text for c in comparisons for text in (*(turn.content for turn in c.conversation), *c.responses)]
    tokenizer = Tokenizer.load(TOKENIZER.value) if TOKENIZER.value else train_tokenizer(texts, vocab_size=8000)
    prompter = Prompter(DEFAULT_PROMPT, tokenizer)

    preamble_of = functools.cache(prompter.preamble_of)

    def split(prompt: list[int], template: Template | None) -> tuple[int, int]:
        preamble = preamble_of(template) if template else []
        shared = batches.shared_tokens(prompt, preamble) if len(preamble) >= engine_shape.LEAST_SHARED else 0
        return len(prompt) - shared, shared

    rows = []
    for c in tqdm.tqdm(comparisons, "prompts", leave=False):
        order = rng.permutation(2)
        singles = [prompter.encode(single, (0,)) for single in cloud.responses_apart(c)]
        stem, rests = cloud_stage.group_of(singles, [[()]] * 2)
        rows.append(
            (
                split(prompter.encode(c, order), prompter.template),
                split(prompter.encode_meta(c, order), prompter.meta),
                split(bradley_terry.encode_conversation(tokenizer, c), None),
                split(stem, prompter.single),
                [*map(len, rests)],
                [*map(len, bradley_terry.encode_responses(tokenizer, c))],
            )
        )
    *prompts, rests, responses = map(np.array, zip(*rows, strict=True))
    return Read(*(Prompts(found[..., 0], found[..., 1]) for found in prompts), rests, responses)


def completion_lengths(rows: int, group_size: int, rng: np.random.Generator) -> np.ndarray:
    """Int[N G]: those of a run's rollouts, whole groups where they are large enough, or drawn."""
    if not ROLLOUTS.value:
        drawn = np.exp(rng.normal(np.log(MEDIAN.value), SPREAD.value, (rows, group_size)))
        return np.ceil(drawn).clip(60, 1024).astype(int)
    groups = [
        [len(tokens) for tokens in row["completions"]] for path in glob.glob(ROLLOUTS.value) for _, row in read_jsonl(path)
    ]
    groups = [group[:group_size] for group in groups if len(group) >= group_size]
    if not groups:
        raise InputError(f"--rollouts={ROLLOUTS.value}: no group of {group_size} completions")
    return np.array(groups)[rng.integers(0, len(groups), rows)]


def lengths_of(name: str, found: Read, rng: np.random.Generator) -> tuple[Prompts, np.ndarray, Bucket]:
    """(the prompts of a stage's rows, tokens of their completions together, its limits)."""
    if name in ("btrm", "pairrm"):
        completions = found.responses.sum(1)
        longest = found.responses.max() if name == "btrm" else completions.max()
        return found.conversations, completions, tuple(map(preference.round_up, (found.conversations.own.max(), longest)))
    data = config_lib.paper(sizes.get("gemma2_2b")).data
    G = STAGES[name][0]
    if name == "cloud":
        completions = found.rests + completion_lengths(len(found.responses), G, rng)
        limits = int(found.stems.complete.max()), int(found.rests.max()) + data.max_completion
        return found.stems, completions.sum(1), tuple(map(preference.round_up, limits))
    completions = completion_lengths(len(found.responses), G, rng).sum(1)
    return found.metas if name == "meta_rm" else found.prompts, completions, (data.max_prompt, data.max_completion)


def stage_rows(name: str, found: Read, rng: np.random.Generator) -> list[list[str]]:
    """The lines of the table that are about a stage."""
    G, rows, most = STAGES[name]
    micro_batches = next(fewer for fewer in range(max(most // FEWER.value, 1), 0, -1) if rows % fewer == 0)
    shape = G, rows, micro_batches
    prompts, completions, limits = lengths_of(name, found, rng)
    complete = prompts.without_preamble()
    seen = draws.order(0, "padding", len(completions), 0, rows if name == "rl" else max(rows, bucket_choice.ROWS))
    growth = experience.GROWTH if name == "rl" else 1.0
    options = G, min(BUCKETS.value, micro_batches + 1), limits, (rows, micro_batches), growth
    table, of_complete = (bucket_choice.choose(each.own[seen], completions[seen], *options) for each in (prompts, complete))
    longest = int(complete.own.max()), ceil_div(int(completions.max()), G)
    found_at = [slots_of(complete, completions, (one,), shape)[0] for one in (limits, longest)]
    share, computed = slots_of(prompts, completions, table, shape)
    cells = [f"{share:.1%} ({1 / (1 - share):.2f})" for share in (*found_at, share)]
    batch, saved = f"{rows} in {micro_batches}", computed / slots_of(complete, completions, of_complete, shape)[1]
    lines = [[name, batch, *cells, f"{len(table)}, trunks of {table[0][0]}", f"{saved:.2f}"]]
    if name == "rl":
        longer = np.minimum(completions * LONGER.value, G * limits[1]).astype(int)
        (share, computed), before = slots_of(prompts, longer, table, shape), slots_of(complete, longer, of_complete, shape)[1]
        cells = [f"{share:.1%} ({1 / (1 - share):.2f})", "the same", f"{computed / before:.2f}"]
        lines.append([f"rl, {LONGER.value} times as long", batch, "", "", *cells])
    return lines


def times(found: Read, rng: np.random.Generator) -> str:
    """Says what an update of fine-tuning with the preamble computed once takes, next to one with complete prompts.

    Both are in buckets of their own, learn from the same rows of one completion, and take turns. Time is the processor time of
    all threads, so that other processes count little. Tokens are random, and losses are compared.
    """
    rows, data = TIMED.value, config_lib.paper(sizes.get("gemma2_2b")).data
    micro_batches = max(rows // ROWS_AT_ONCE, min(rows, 4))
    completions = completion_lengths(len(found.responses), 1, rng).sum(1)
    drawn = np.array(draws.order(0, "padding", len(completions), 1, rows))
    preamble = tuple(rng.integers(1, MODEL.vocab_size, int(found.prompts.shared.max())).tolist())
    behind, written = (
        [rng.integers(1, MODEL.vocab_size, length).tolist() for length in lengths[drawn]]
        for lengths in (found.prompts.own, completions)
    )
    layout = sharding.make_layout()
    optimizer = optimizers.make(OptimizerConfig(warmup_steps=1), 10)
    params = jax.jit(functools.partial(models.init, MODEL))(jax.random.key(0))
    limits, sides, operations = (data.max_prompt, data.max_completion), {}, {}
    for name, prompts, shared in (("complete", found.prompts.without_preamble(), ()), ("once", found.prompts, preamble)):
        table = bucket_choice.choose(prompts.own, completions, 1, micro_batches + 1, limits, (rows, micro_batches))
        order, chosen = buckets.arrange(prompts.own[drawn], completions[drawn], table, 1, micro_batches)
        made = [[*preamble, *behind[i]] for i in order], [[written[i]] for i in order]
        groups = batches.pack(*made, max_prompt=limits[0], max_completion=limits[1], group_size=1, preamble=shared)
        state = train_state.make_state(layout, jax.tree.map(np.array, params), optimizer)
        sides[name] = sft.make_step(layout, state, MODEL, optimizer, shared), Batch(layout.split(groups), chosen)
        each = (flops.update(MODEL, rows // micro_batches, 1, b[0] - 1, b[1], prefix=len(shared)) for b in chosen)
        of_preamble = flops.prefill(MODEL, 1, len(shared)) + flops.prefill_update(MODEL, 1, len(shared)) if shared else 0
        operations[name] = sum(each) + of_preamble
    spent, losses = {name: [] for name in sides}, {}
    for timing in tqdm.trange(TIMINGS + 1, desc="updates", leave=False):  # the first one compiles
        for name, (step, batch) in sides.items():
            begin = time.process_time()
            _, metrics, _ = jax.block_until_ready(step.gradients(params, [batch]))
            losses[name] = metrics["loss"].compute()
            if timing:
                spent[name].append(time.process_time() - begin)
    said = {name: ", ".join(f"{seconds:.2f}" for seconds in each) for name, each in spent.items()}
    ratios = [after / before for before, after in zip(spent["complete"], spent["once"], strict=True)]
    return (
        f"processor seconds of the gradients of {rows} rows of one completion: {said['complete']} with complete prompts, "
        f"{said['once']} with the preamble once: {np.median(ratios):.2f} times, and "
        f"{operations['once'] / operations['complete']:.2f} times the operations; "
        f"losses {losses['complete']:.6f} and {losses['once']:.6f}"
    )


def main(_) -> None:
    """Prints a table per source."""
    sharding.use_devices(MeshConfig(cpu_devices=1))
    for source in SOURCE.value:
        rng = np.random.default_rng(0)
        found = read(source, rng)
        of, shared = found.prompts.complete, found.prompts.shared
        said = f"{(shared > 0).mean():.0%} begin with a preamble of {shared.max()}"
        print(f"prompts: {of.min()} to {of.max()} tokens, {of.mean():.0f} in the mean; {said}")
        of = found.conversations.own + found.responses.sum(1)
        print(f"conversations with both responses: {of.min()} to {of.max()}, {of.mean():.0f} in the mean")
        header = [
            "stage",
            "rows in micro-batches",
            "at the limits",
            "at the longest",
            "in buckets",
            "buckets",
            "slots, of complete ones",
        ]
        print(markdown.table(header, [line for name in STAGES for line in stage_rows(name, found, rng)]))
        if TIMED.value:
            print(times(found, rng))


if __name__ == "__main__":
    cli.run(main, FLAGS)
