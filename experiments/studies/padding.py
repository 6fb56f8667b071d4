r"""How many slots of an update hold no token, with one shape and with length buckets, on files of preferences.

What: reads each source, makes the prompts of the default template (each comparison in a random order of its responses) and what
the baselines read, chooses buckets as a stage does (`training.bucket_choice`) and puts the batches of some steps into
micro-batches as training does (`training.buckets.arrange`), for the batches of the paper's settings on Gemma-2 2B. For each
stage it prints the padding, and padded over real slots, at one shape (`data.max_prompt` and `data.max_completion` of those
settings; of the baselines the longest that there are), at one that is no larger than the lengths need, and in buckets, and how
many these are. Those of RL are chosen from a first step, and tried on completions that are `--longer` times as long, too.
`--fewer` divides the numbers of micro-batches. With `--time` an update of a small model is timed as well, see `times`.
Hardware: one CPU core, no accelerator.
Time: some seconds per source, and with `--time` some minutes more.
Expected result: in buckets at most 15 % in every stage of pairs.
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

from spct_jax import cli, models
from spct_jax import config as config_lib
from spct_jax.data import batches, draws
from spct_jax.data.batches import Groups
from spct_jax.data.jsonl import read_jsonl
from spct_jax.data.sources import read_comparisons
from spct_jax.data.tokenizer import Tokenizer, train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import DEFAULT_PROMPT
from spct_jax.grm.prompts import Prompter
from spct_jax.models import sizes
from spct_jax.reporting import markdown
from spct_jax.reward_models import bradley_terry, cloud
from spct_jax.rounding import ceil_div
from spct_jax.training import bucket_choice, buckets, grpo, preference, sft
from spct_jax.training.buckets import Bucket

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
TIME = flags.DEFINE_bool("time", False, "Whether an update of a small model is timed, too.", flag_values=FLAGS)
STAGES = {
    "sft, rows of one": (1, 256, 16),
    "sft, rows of two": (2, 128, 16),
    "rft, rows of one": (1, 1024, 64),
    "rl": (4, 128, 8),
    "meta_rm": (3, 176, 11),
    "btrm": (2, 512, 32),
    "pairrm": (1, 512, 32),
    "cloud": (1, 512, 32),
}
"""Completions of a prompt, rows of a step and its micro-batches."""
STEPS = 20
TIMED = 8
"""Groups of the update that is timed, one a micro-batch."""
TIMINGS = 2


class Read(NamedTuple):
    """Tokens of what is read of N comparisons of two responses."""

    prompts: np.ndarray
    """[N]: the prompt of the default template."""
    conversations: np.ndarray
    """[N]: the conversation alone, as Bradley-Terry and PairRM read it."""
    responses: np.ndarray
    """[N 2]: each response as an answer."""
    singles: np.ndarray
    """[N 2]: the prompt for each response by itself, as CLoud reads it."""


def padding(prompts: np.ndarray, completions: np.ndarray, table: Sequence[Bucket], shape: tuple[int, int, int]) -> float:
    """The share of the slots of some steps that hold no token.

    Args:
      prompts: [N *each], tokens of each prompt.
      completions: [N *each], tokens of its completions together.
      table: of buckets.
      shape: as in `STAGES`.
    """
    (G, rows, micro_batches), tokens, computed = shape, 0, 0
    for step in range(1, STEPS + 1):
        drawn = draws.order(0, "padding", len(prompts), step, rows)
        _, chosen = buckets.arrange(prompts[drawn], completions[drawn], table, G, micro_batches)
        computed += prompts[0].size * rows // micro_batches * sum(buckets.slots(bucket, G) for bucket in chosen)
        tokens += (prompts[drawn] - 1).sum() + completions[drawn].sum()
    return 1 - tokens / computed


def read(source: str, rng: np.random.Generator) -> Read:
    """What is read of each comparison of a source; those that have not two responses are left out."""
    comparisons, report = read_comparisons(source, on_bad="skip", need_best=True)
    comparisons = [c for c in comparisons if c.n == 2]
    print(f"{source}: {len(comparisons):,} comparisons of {report.read:,} rows")
    texts = [text for c in comparisons for text in (*(turn.content for turn in c.conversation), *c.responses)]
    tokenizer = Tokenizer.load(TOKENIZER.value) if TOKENIZER.value else train_tokenizer(texts, vocab_size=8000)
    prompter = Prompter(DEFAULT_PROMPT, tokenizer)
    rows = [
        (
            len(prompter.encode(c, rng.permutation(2))),
            len(bradley_terry.encode_conversation(tokenizer, c)),
            [*map(len, bradley_terry.encode_responses(tokenizer, c))],
            [len(prompter.encode(single, (0,))) for single in cloud.responses_apart(c)],
        )
        for c in tqdm.tqdm(comparisons, "prompts", leave=False)
    ]
    return Read(*map(np.array, zip(*rows, strict=True)))


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


def lengths_of(name: str, found: Read, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Bucket]:
    """(tokens of the prompts of a stage's rows, of their completions together, its limits)."""
    if name in ("btrm", "pairrm"):
        completions = found.responses.sum(1)
        longest = found.responses.max() if name == "btrm" else completions.max()
        return found.conversations, completions, tuple(map(preference.round_up, (found.conversations.max(), longest)))
    data = config_lib.paper(sizes.get("gemma2_2b")).data
    G = STAGES[name][0]
    if name == "cloud":  # a critique of each of two responses; its limit is the longest of all
        critiques = completion_lengths(len(found.singles), 2, rng)
        return found.singles, critiques, (preference.round_up(found.singles.max()), data.max_completion)
    completions = completion_lengths(len(found.prompts), G, rng).sum(1)
    return found.prompts, completions, (data.max_prompt, data.max_completion)


def stage_rows(name: str, found: Read, rng: np.random.Generator) -> list[list[str]]:
    """The lines of the table that are about a stage."""
    G, rows, most = STAGES[name]
    micro_batches = next(fewer for fewer in range(max(most // FEWER.value, 1), 0, -1) if rows % fewer == 0)
    shape = G, rows, micro_batches
    prompts, completions, limits = lengths_of(name, found, rng)
    count = min(BUCKETS.value, micro_batches + 1)
    seen = draws.order(0, "padding", len(prompts), 0, rows if name == "rl" else max(rows, bucket_choice.ROWS))
    growth = grpo.GROWTH if name == "rl" else 1.0
    table = bucket_choice.choose(prompts[seen], completions[seen], G, count, limits, (rows, micro_batches), growth)
    longest = int(prompts.max()), ceil_div(int(completions.max()), G)
    shares = [padding(prompts, completions, chosen, shape) for chosen in ((limits,), (longest,), table)]
    cells = [f"{share:.1%} ({1 / (1 - share):.2f})" for share in shares]
    batch = f"{rows} in {micro_batches}"
    lines = [[name, batch, *cells, f"{len(table)}, trunks of {table[0][0]}"]]
    if name == "rl":
        longer = np.minimum(completions * LONGER.value, G * limits[1]).astype(int)
        share = padding(prompts, longer, table, shape)
        lines.append([f"rl, {LONGER.value} times as long", batch, "", "", f"{share:.1%} ({1 / (1 - share):.2f})", "the same"])
    return lines


def times(found: Read, rng: np.random.Generator) -> str:
    """Says what a real token of RL's groups costs in buckets, next to updates without any empty slot, on this machine.

    The model is `sizes.toy`, and the update that of fine-tuning, whose arithmetic is GRPO's. It is compared with groups that
    all have the mean lengths, and with one group that fills the limits, each completion a branch. Time is that of all
    threads, so that other processes do not count, and the fastest round's.
    """
    G, data, model = 4, config_lib.paper(sizes.get("gemma2_2b")).data, sizes.toy(64)
    limits = data.max_prompt, data.max_completion
    completions = completion_lengths(len(found.prompts), G, rng)
    together = completions.sum(1)
    count = min(BUCKETS.value, TIMED + 1)
    table = bucket_choice.choose(found.prompts, together, G, count, limits, (TIMED, TIMED))
    drawn = np.array(draws.order(0, "padding", len(found.prompts), 1, TIMED))
    drawn = drawn[buckets.arrange(found.prompts[drawn], together[drawn], table, G, TIMED)[0]]

    def groups(prompts: np.ndarray, completions: np.ndarray, max_prompt: int, max_completion: int) -> Groups:
        made = [rng.integers(1, 64, length).tolist() for length in prompts]
        behind = [[rng.integers(1, 64, length).tolist() for length in row] for row in completions]
        return batches.pack(made, behind, max_prompt=max_prompt, max_completion=max_completion, group_size=G)

    mean = int(found.prompts[drawn].mean()), int(completions[drawn].mean())
    cases = {
        "in buckets": (groups(found.prompts[drawn], completions[drawn], *limits), TIMED, table),
        "at the mean lengths": (groups(np.full(TIMED, mean[0]), np.full((TIMED, G), mean[1]), *mean), TIMED, ()),
        "at the limits": (groups(np.full(1, limits[0]), np.full((1, G), limits[1]), *limits), 1, ()),
    }
    params = jax.jit(functools.partial(models.init, model))(jax.random.key(0))
    update = jax.jit(sft.sft_gradients, static_argnames=("config", "micro_batches", "tables"))
    least = {}
    for timing in range(TIMINGS + 1):  # the first one compiles
        for name, (batch, count, chosen) in cases.items():
            begin = time.process_time()
            jax.block_until_ready(update(params, (batch,), config=model, micro_batches=(count,), tables=(chosen,)))
            per_token = (time.process_time() - begin) / (batch.trunk_lengths.sum() + batch.lengths.sum())
            if timing:
                least[name] = min(per_token, least.get(name, np.inf))
    ours = least.pop("in buckets")
    said = ", ".join(f"{ours / other:.2f} times that {name} ({1e6 * other:.0f})" for name, other in least.items())
    return f"an update's CPU time per real token in buckets: {1e6 * ours:.0f} us, {said}, where no slot is empty"


def main(_) -> None:
    """Prints a table per source."""
    for source in SOURCE.value:
        rng = np.random.default_rng(0)
        found = read(source, rng)
        of = found.prompts
        print(f"prompts: {of.min()} to {of.max()} tokens, {of.mean():.0f} in the mean")
        of = found.conversations + found.responses.sum(1)
        print(f"conversations with both responses: {of.min()} to {of.max()}, {of.mean():.0f} in the mean")
        header = ["stage", "rows in micro-batches", "at the limits", "at the longest", "in buckets", "buckets"]
        print(markdown.table(header, [line for name in STAGES for line in stage_rows(name, found, rng)]))
        if TIME.value:
            print(times(found, rng))


if __name__ == "__main__":
    cli.run(main, FLAGS)
