r"""How many slots of an update hold no token, with one shape and with length buckets, on files of preferences.

What: reads each source, makes the prompts of the default template (each comparison in a random order of its responses), and
puts the batches of some steps into micro-batches as training does (`training.buckets.arrange`). Prints the padding of trunks
and branches with one shape for all and with buckets, and the buckets, ready for `data.buckets`. They are chosen for rows of
one branch and of `--group` branches: again and again, the candidate is added that saves the most slots.
Hardware: one CPU core, no accelerator.
Time: a minute per source, most of it for a tokenizer, unless one is named.
Expected result: in rows of one branch, as fine-tuning has, at most 15 % with 12 buckets. A group of several branches also has
the slots behind its shorter completions, which no order of rows can save; their share of the branches' slots is printed.
Data: no public set has verdicts in this form, so their lengths are drawn: log-normal, with a median and a spread that can be
set. `--rollouts` takes them from a run instead (its `rl/rollouts/*.jsonl`).

    python experiments/studies/padding.py --source='hh_rlhf:hh-rlhf/harmless-base/*.jsonl.gz' --source=pandalm:testset-v1.json
"""

import glob
from collections.abc import Sequence

import numpy as np
import tqdm
from absl import flags

from spct_jax import cli
from spct_jax.data import draws
from spct_jax.data.jsonl import read_jsonl
from spct_jax.data.sources import read_comparisons
from spct_jax.data.tokenizer import Tokenizer, train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.training import buckets
from spct_jax.training.buckets import Bucket

FLAGS = flags.FlagValues()
SOURCE = flags.DEFINE_multi_string("source", None, "Comparisons, such as hh_rlhf:FILES.", required=True, flag_values=FLAGS)
TOKENIZER = flags.DEFINE_string(
    "tokenizer", "", "SentencePiece model; empty: one of 8,000 pieces is trained.", flag_values=FLAGS
)
ROLLOUTS = flags.DEFINE_string("rollouts", "", "Files of rollouts whose completions have the lengths.", flag_values=FLAGS)
MEDIAN = flags.DEFINE_integer("median", 300, "Median length of a completion, in tokens.", 1, flag_values=FLAGS)
SPREAD = flags.DEFINE_float("spread", 0.25, "Standard deviation of the logarithm of lengths.", 0.0, 2.0, flag_values=FLAGS)
GROUP = flags.DEFINE_integer("group", 4, "Completions of a prompt in RL.", 1, flag_values=FLAGS)
BUCKETS = flags.DEFINE_integer("buckets", 12, "How many shapes, the largest among them.", 1, 64, flag_values=FLAGS)
BATCHES = {1: (256, 32), 0: (128, 16)}
"""Rows of a step and micro-batches, for rows of one branch and (0) of a group."""
STEPS = 20
MULTIPLE = 8
"""Candidates are multiples of this many tokens."""


def choose(prompts: np.ndarray, completions: np.ndarray, group_size: int, count: int) -> list[Bucket]:
    """The `count` buckets, one of which holds everything, with few slots for rows of these lengths."""
    levels = [
        np.unique(-(-np.quantile(x, np.linspace(0, 1, 25)).astype(int) // MULTIPLE) * MULTIPLE) for x in (prompts, completions)
    ]
    candidates = [(int(prompt), int(completion)) for prompt in levels[0] for completion in levels[1]]
    cost = np.array([buckets.slots(bucket, group_size) for bucket in candidates])
    holds = (np.array(candidates)[:, :1] >= prompts) & (np.array(candidates)[:, 1:] >= completions)
    needed = np.where(holds, cost[:, None], 1 << 40)
    chosen = [len(candidates) - 1]
    while len(chosen) < min(count, len(candidates)):
        chosen.append(int(np.maximum(needed[chosen].min(0) - needed, 0).sum(1).argmax()))
    return sorted({candidates[number] for number in chosen})


def padding(prompts: np.ndarray, completions: np.ndarray, table: Sequence[Bucket], batch: tuple[int, int]) -> float:
    """The share of the slots of some steps that hold no token.

    Args:
      prompts: [N], tokens of each prompt.
      completions: [N G], tokens of each completion.
      table: of buckets.
      batch: rows of a step, and how many micro-batches they are in.
    """
    (rows, micro_batches), G, tokens, computed = batch, completions.shape[1], 0, 0
    for step in range(STEPS):
        drawn = draws.order(0, "padding", len(prompts), step, rows)
        lengths = prompts[drawn], completions[drawn].max(1)
        _, chosen = buckets.arrange(*lengths, table, G, micro_batches)
        computed += rows // micro_batches * sum(buckets.slots(bucket, G) for bucket in chosen)
        tokens += (prompts[drawn] - 1).sum() + completions[drawn].sum()
    return 1 - tokens / computed


def prompt_lengths(source: str, rng: np.random.Generator) -> np.ndarray:
    """Tokens of the prompt of each comparison of a source."""
    comparisons, report = read_comparisons(source, on_bad="skip", need_best=True)
    print(f"{source}: {len(comparisons):,} comparisons of {report.read:,} rows")
    texts = [text for c in comparisons for text in (*(turn.content for turn in c.conversation), *c.responses)]
    tokenizer = Tokenizer.load(TOKENIZER.value) if TOKENIZER.value else train_tokenizer(texts, vocab_size=8000)
    prompter = Prompter(PromptConfig("default", "single", "meta", "judge"), tokenizer)
    return np.array([len(prompter.encode(c, rng.permutation(c.n))) for c in tqdm.tqdm(comparisons, "prompts", leave=False)])


def completion_lengths(rows: int, group_size: int, rng: np.random.Generator) -> np.ndarray:
    """Int[N G]: those of a run's rollouts, whole groups where they are large enough, or drawn."""
    if not ROLLOUTS.value:
        return np.exp(rng.normal(np.log(MEDIAN.value), SPREAD.value, (rows, group_size))).astype(int) + 1
    groups = [
        [len(tokens) for tokens in row["completions"]] for path in glob.glob(ROLLOUTS.value) for _, row in read_jsonl(path)
    ]
    groups = [group[:group_size] for group in groups if len(group) >= group_size]
    if not groups:
        raise InputError(f"--rollouts={ROLLOUTS.value}: no group of {group_size} completions")
    return np.array(groups)[rng.integers(0, len(groups), rows)]


def main(_) -> None:
    """Prints a table per source."""
    for source in SOURCE.value:
        rng = np.random.default_rng(0)
        prompts = prompt_lengths(source, rng)
        print(f"prompts: {prompts.min()} to {prompts.max()} tokens, median {int(np.median(prompts))}")
        for G in sorted({1, GROUP.value}):
            completions = completion_lengths(len(prompts), G, rng)
            batch, longest = BATCHES[int(G == 1)], completions.max(1)
            table = choose(prompts, longest, G, BUCKETS.value)
            before, after = (padding(prompts, completions, t, batch) for t in (table[-1:], table))
            within = 1 - completions.sum() / (G * longest.sum())
            print(f"rows of {G}, {batch[0]} in {batch[1]} micro-batches: padding {before:.1%}, in buckets {after:.1%}")
            print(f"  {within:.1%} of the slots of branches are behind the shorter ones of a group")
            print(f"  data.max_prompt={table[-1][0]} data.max_completion={table[-1][1]} data.buckets={tuple(table[:-1])}")


if __name__ == "__main__":
    cli.run(main, FLAGS)
