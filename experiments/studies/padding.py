r"""How many slots of an update hold no token, with one shape and with length buckets, on files of preferences.

What: reads each source, makes the prompts of the default template (each comparison in a random order of its responses), chooses
buckets as a stage does (`training.bucket_choice`) and puts the batches of some steps into micro-batches as training does
(`training.buckets.arrange`), for the batches of the paper's settings on Gemma-2 2B. For each stage it prints the padding, and
padded over real slots, at one shape (`data.max_prompt` and `data.max_completion` of those settings), at one that is no larger
than the lengths need, and in buckets, and which buckets these are. Those of RL are chosen from a first step, and tried on
completions that are `--longer` times as long, too.
Hardware: one CPU core, no accelerator.
Time: a minute per source, most of it for a tokenizer, unless one is named.
Expected result: in buckets at most 15 % in every stage.
Data: no public set has verdicts in this form, so their lengths are drawn: log-normal, with a median and a spread that can be
set, from 60 to 1,024 tokens. `--rollouts` takes them from a run instead (its `rl/rollouts/*.jsonl`).

    python experiments/studies/padding.py --source='hh_rlhf:hh-rlhf/harmless-base/*.jsonl.gz' --source=pandalm:testset-v1.json
"""

import glob
from collections.abc import Sequence

import numpy as np
import tqdm
from absl import flags

from spct_jax import cli
from spct_jax import config as config_lib
from spct_jax.data import draws
from spct_jax.data.jsonl import read_jsonl
from spct_jax.data.sources import read_comparisons
from spct_jax.data.tokenizer import Tokenizer, train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.prompts import Prompter
from spct_jax.models import sizes
from spct_jax.reporting import markdown
from spct_jax.training import bucket_choice, buckets, grpo
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
BUCKETS = flags.DEFINE_integer("buckets", 8, "Most shapes, the largest among them.", 2, 64, flag_values=FLAGS)
STAGES = {
    "sft, rows of one": (1, 256, 16),
    "sft, rows of two": (2, 128, 16),
    "rft, rows of one": (1, 1024, 64),
    "rl": (4, 128, 8),
    "meta_rm": (3, 176, 11),
}
"""Completions of a prompt, rows of a step and its micro-batches."""
STEPS = 20


def padding(prompts: np.ndarray, completions: np.ndarray, table: Sequence[Bucket], shape: tuple[int, int, int]) -> float:
    """The share of the slots of some steps that hold no token.

    Args:
      prompts: [N], tokens of each prompt.
      completions: [N], tokens of its completions together.
      table: of buckets.
      shape: as in `STAGES`.
    """
    (G, rows, micro_batches), tokens, computed = shape, 0, 0
    for step in range(1, STEPS + 1):
        drawn = draws.order(0, "padding", len(prompts), step, rows)
        _, chosen = buckets.arrange(prompts[drawn], completions[drawn], table, G, micro_batches)
        computed += rows // micro_batches * sum(buckets.slots(bucket, G) for bucket in chosen)
        tokens += (prompts[drawn] - 1).sum() + completions[drawn].sum()
    return 1 - tokens / computed


def prompt_lengths(source: str, rng: np.random.Generator) -> np.ndarray:
    """Tokens of the prompt of each comparison of a source."""
    comparisons, report = read_comparisons(source, on_bad="skip", need_best=True)
    print(f"{source}: {len(comparisons):,} comparisons of {report.read:,} rows")
    texts = [text for c in comparisons for text in (*(turn.content for turn in c.conversation), *c.responses)]
    tokenizer = Tokenizer.load(TOKENIZER.value) if TOKENIZER.value else train_tokenizer(texts, vocab_size=8000)
    prompter = Prompter(config_lib.PromptConfig("default", "single", "meta", "judge"), tokenizer)
    return np.array([len(prompter.encode(c, rng.permutation(c.n))) for c in tqdm.tqdm(comparisons, "prompts", leave=False)])


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


def stage_rows(name: str, prompts: np.ndarray, rng: np.random.Generator) -> list[list[str]]:
    """The lines of the table that are about a stage."""
    G, rows, micro_batches = shape = STAGES[name]
    data = config_lib.paper(sizes.get("gemma2_2b")).data
    limits = data.max_prompt, data.max_completion
    completions = completion_lengths(len(prompts), G, rng)
    together, count = completions.sum(1), min(BUCKETS.value, micro_batches)
    seen = draws.order(0, "padding", len(prompts), 0, rows if name == "rl" else max(rows, bucket_choice.ROWS))
    growth = grpo.GROWTH if name == "rl" else 1.0
    table = bucket_choice.choose(prompts[seen], together[seen], G, count, limits, (rows, micro_batches), growth)
    tables = ((limits,), ((int(prompts.max()), int(completions.max())),), table)
    shares = [padding(prompts, together, chosen, shape) for chosen in tables]
    cells = [f"{share:.1%} ({1 / (1 - share):.2f})" for share in shares]
    batch = f"{rows} in {micro_batches}"
    named = f"{table[0][0]} + {G} x " + ", ".join(str(completion) for _, completion in table[:-1])
    lines = [[name, batch, *cells, named]]
    if name == "rl":
        longer = np.minimum(completions * LONGER.value, limits[1]).astype(int).sum(1)
        share = padding(prompts, longer, table, shape)
        lines.append([f"rl, {LONGER.value} times as long", batch, "", "", f"{share:.1%} ({1 / (1 - share):.2f})", "the same"])
    return lines


def main(_) -> None:
    """Prints a table per source."""
    for source in SOURCE.value:
        rng = np.random.default_rng(0)
        prompts = prompt_lengths(source, rng)
        print(f"prompts: {prompts.min()} to {prompts.max()} tokens, {prompts.mean():.0f} in the mean")
        header = ["stage", "rows in micro-batches", "at the limits", "at the longest", "in buckets", "buckets but the limits"]
        print(markdown.table(header, [line for name in STAGES for line in stage_rows(name, prompts, rng)]))


if __name__ == "__main__":
    cli.run(main, FLAGS)
