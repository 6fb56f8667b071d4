r"""Expected scores with real weights: a pretrained model judges pairs of LLMBar and hh-rlhf that it was never trained to judge.

    python experiments/studies/expected_scores_pretrained.py --checkpoint=gemma-3-270m --llmbar=LLMBar \
        --hh='hh_rlhf:harmless-base/test.jsonl.gz' --items=64 --output=docs/results

Both votes are counted over the very same critiques, as in `expected_scores.py`, whose columns these are. A base model does not
follow instructions, so it is asked to go on with a text: `one_line.txt` shows two pairs with their scores, then the pair in
question and "Scores:". The prompt is plain text without the turns of a chat, which this model has not seen, and a critique
ends where its line does. Pairs are a sample of those whose prompt has at most `--max_prompt` tokens in either order. Writes
expected_scores_pretrained.md.
"""

import dataclasses
import pathlib
import time
from collections.abc import Sequence

import numpy as np
from absl import flags
from expected_scores import table

from spct_jax import cli
from spct_jax.data import draws
from spct_jax.data.comparison import Comparison
from spct_jax.data.jsonl import ReadReport
from spct_jax.data.sources import read_comparisons
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.evaluation import recorded
from spct_jax.evaluation.benchmarks import llmbar
from spct_jax.evaluation.metrics import all_votes
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.grm.render import render
from spct_jax.judging.judge import Judge
from spct_jax.judging.verdicts import sample_to_json

FLAGS = flags.FlagValues()
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Model directory.", required=True, flag_values=FLAGS)
LLMBAR = flags.DEFINE_string("llmbar", None, "LLMBar's directory.", required=True, flag_values=FLAGS)
HH = flags.DEFINE_string("hh", None, "Source of hh-rlhf's pairs.", required=True, flag_values=FLAGS)
ITEMS = flags.DEFINE_integer("items", 64, "Pairs of each.", 1, flag_values=FLAGS)
K = flags.DEFINE_integer("k", 8, "Critiques of each pair.", 1, flag_values=FLAGS)
TEMPERATURE = flags.DEFINE_float("temperature", 0.5, "Of sampling.", flag_values=FLAGS)
MAX_PROMPT = flags.DEFINE_integer("max_prompt", 256, "Tokens of the longest prompt.", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "Directory for the page.", required=True, flag_values=FLAGS)
TEMPLATE = str(pathlib.Path(__file__).with_name("one_line.txt"))
LONGEST = 12
"""Tokens of a critique: a line of scores has nine."""


class Plain(Prompter):
    """Prompts without the turns of a chat."""

    def encode(self, comparison: Comparison, order: Sequence[int], *, hinted: bool = False) -> list[int]:
        """As of `Prompter`."""
        (turn,) = render(comparison, order, self.template_of(comparison))
        return [self.tokenizer.bos_id, *self.tokenizer.encode(turn.content.strip())]


def load() -> Judge:
    """The judge, with its plain prompts and the ends of lines as ends of critiques."""
    config = PromptConfig(TEMPLATE, TEMPLATE, "meta", TEMPLATE)
    models = Judge.load(CHECKPOINT.value, prompt=config).models
    own = models.policy.prompter.tokenizer
    ends = [own.find(line) for line in ("\n", "\n\n")]
    tokenizer = Tokenizer(own.model_proto, [*own.stop_ids, *(end for end in ends if end is not None)])
    return Judge(dataclasses.replace(models, policy=dataclasses.replace(models.policy, prompter=Plain(config, tokenizer))))


def pairs_of(name: str) -> list[tuple[Comparison, int]]:
    """All pairs of a data set, each with the index of its better response."""
    if name == "LLMBar":
        items = llmbar.BENCHMARK.read(LLMBAR.value, "fatal", ReadReport())
        return [(item.comparison, item.best) for item in items if item.comparison is not None]
    found, _ = read_comparisons(HH.value, on_bad="skip")
    return [(one, one.best) for one in found if one.n == 2 and one.best is not None]


def main(_) -> None:
    """Judges, and writes the page."""
    judge = load()
    prompter, lines = judge.models.policy.prompter, ["# Expected scores with real weights", ""]
    for name in ("LLMBar", "hh-rlhf, harmless-base"):
        everything = pairs_of(name)
        short = [pair for pair in everything if prompter.longest(pair[0], limit=MAX_PROMPT.value) <= MAX_PROMPT.value]
        chosen = [short[index] for index in draws.sample(0, name, len(short), ITEMS.value)]
        options = {"k": K.value, "temperature": TEMPERATURE.value, "max_new_tokens": LONGEST, "max_prompt": MAX_PROMPT.value}
        start = time.process_time()
        verdicts = judge.score([pair for pair, _ in chosen], **options, read="expected", batch_size=8)
        seconds = time.process_time() - start
        rows = [
            {"id": c.id, "n": 2, "best": best, "samples": [sample_to_json(s) | {"expected": s.expected} for s in v.samples]}
            for (c, best), v in zip(chosen, verdicts, strict=True)
        ]
        votes = all_votes(rows)
        read = [s for row in rows for s in row["samples"] if s["scores"] is not None]
        apart = np.concatenate([np.abs(np.subtract(s["expected"], s["scores"])) for s in read]) if read else np.zeros(1)
        first = np.mean([s["scores"][s["order"][0]] - s["scores"][s["order"][1]] for s in read]) if read else 0.0
        lines += [
            f"## {name}",
            "",
            f"{len(chosen)} of {len(everything):,} pairs, a sample of the {len(short):,} whose prompt has at most "
            f"{MAX_PROMPT.value} tokens; {K.value} critiques of each at temperature {TEMPERATURE.value:g}, "
            f"{recorded.malformed_rate(votes):.1%} of which could not be read. An expected score is {apart.mean():.2f} from "
            f"the integer that was drawn on average; the response shown first gets {first:+.2f} points more. "
            f"{seconds:,.0f} s of processor time.",
            "",
            *table(rows, [(f"vote@{m}", m, None) for m in (1, 2, 4, 8, 16, 32) if m <= K.value]),
            "",
        ]
        print("\n".join(lines), flush=True)
    output = pathlib.Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    (output / "expected_scores_pretrained.md").write_text("\n".join(lines))


if __name__ == "__main__":
    cli.run(main, FLAGS)
