r"""Three ways to judge that need no training of ours: how long responses are, which words they hold, how likely they are.

`Length` and `BagOfWords` are fitted on training comparisons in seconds. The likelihood is that of a pretrained model, which
reads the conversation as plain text, since a base model has not seen the turns of a chat; this command takes it:

    python experiments/studies/text_baselines.py --checkpoint=gemma-3-270m --input=data/test.jsonl --output=likelihood.jsonl

One line of the output for each of the input: the summed log-probability of each response, and how many tokens it has.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import scipy.optimize
import scipy.sparse
import tqdm
from absl import flags

from spct_jax import cli
from spct_jax.data import batches
from spct_jax.data.batches import Groups
from spct_jax.data.comparison import Comparison
from spct_jax.data.jsonl import read_jsonl, write_jsonl
from spct_jax.data.sources import read_comparisons
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.grm import voting
from spct_jax.judging.judge import Judge
from spct_jax.training.group_logprobs import completion_mask, group_logprobs

L2_CHOICES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
MIN_COMPARISONS_PER_WORD = 3
NAMES = {"system": "System", "user": "Human", "assistant": "Assistant"}
PAIR = 2
Totals = list[tuple[float, ...]]
"""Of each comparison, what each response gets."""

FLAGS = flags.FlagValues()
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Model directory of the base model.", required=True, flag_values=FLAGS)
INPUT = flags.DEFINE_string("input", None, "Comparisons, .jsonl.", required=True, flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "Log-probabilities, .jsonl.", required=True, flag_values=FLAGS)
SHAPES = flags.DEFINE_list(
    "shapes",
    ["64", "256", "1024"],
    "Lengths that conversations and responses are padded to, in tokens, ascending: many compute less, few compile less. Of a "
    "longer conversation the end is read, of a longer response the beginning.",
    flag_values=FLAGS,
)
BATCH_TOKENS = flags.DEFINE_integer("batch_tokens", 2048, "About how many tokens are read at once.", 1, flag_values=FLAGS)


def credits(totals: Totals, comparisons: Sequence[Comparison]) -> np.ndarray:
    """Float64[P]: 1/t where the best of a comparison is one of t responses that get the most, else 0."""
    return np.array([voting.expected_credit(t, c.best, c.n) for t, c in zip(totals, comparisons, strict=True)], float)


@dataclasses.dataclass(frozen=True)
class Length:
    """The longer response, or the shorter one: whichever is better oftener in training."""

    longer: bool

    @classmethod
    def fit(cls, train: Sequence[Comparison]) -> "Length":
        """Counts every pair of a best response and another one; the longer where neither side is ahead."""
        signs = (np.sign(len(c.responses[c.best]) - len(other)) for c in train for other in _others(c))
        return cls(sum(signs) >= 0)

    def totals(self, comparisons: Sequence[Comparison]) -> Totals:
        """Characters of each response, or their negative."""
        sign = 1.0 if self.longer else -1.0
        return [tuple(sign * len(response) for response in c.responses) for c in comparisons]

    def __str__(self) -> str:
        return f"the {'longer' if self.longer else 'shorter'} response"


@dataclasses.dataclass(frozen=True)
class BagOfWords:
    """Logistic regression on the difference of two responses' word counts.

    Attributes:
      words: the words counted, each of them in the responses of several training comparisons.
      weights: Float[W].
      l2: weight of the penalty, chosen by the development comparisons' likelihood.
    """

    words: tuple[str, ...]
    weights: np.ndarray
    l2: float

    @classmethod
    def fit(cls, train: Sequence[Comparison], development: Sequence[Comparison]) -> "BagOfWords":
        """Trains one model for each strength of the penalty and returns the one that development comparisons like best.

        Raises:
          InputError: no word occurs often enough, or there is nothing to choose the strength by.
        """
        seen = collections.Counter(word for c in train for word in {w for r in c.responses for w in _words(r)})
        words = tuple(sorted(word for word, count in seen.items() if count >= MIN_COMPARISONS_PER_WORD))
        if not words:
            raise InputError(f"no word occurs in {MIN_COMPARISONS_PER_WORD} training pairs; the bag of words would be empty")
        if not development:
            raise InputError("no development pairs to choose the strength of the bag of words' penalty by")
        x, held_out = _differences(train, words), _differences(development, words)
        fitted = [cls(words, _regress(x, l2), l2) for l2 in L2_CHOICES]
        return min(fitted, key=lambda model: np.logaddexp(0, -(held_out @ model.weights)).mean())

    def totals(self, comparisons: Sequence[Comparison]) -> Totals:
        """The logit of each response."""
        counts = _counts([response for c in comparisons for response in c.responses], self.words)
        logits = iter((counts @ self.weights).tolist())
        return [tuple(next(logits) for _ in c.responses) for c in comparisons]

    def __str__(self) -> str:
        return f"bag of {len(self.words):,} words (L2 {self.l2:g})"


def _regress(x: scipy.sparse.csr_array, l2: float) -> np.ndarray:
    """Float[W] that minimises mean log(1 + exp(-x w)) + l2 |w|^2 / 2."""

    def loss(w):
        margins = x @ w
        wrong = np.exp(-np.logaddexp(0, margins))
        return np.logaddexp(0, -margins).mean() + l2 * (w @ w) / 2, l2 * w - x.T @ wrong / x.shape[0]

    return scipy.optimize.minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x


def _differences(comparisons: Sequence[Comparison], words: Sequence[str]) -> scipy.sparse.csr_array:
    """Float[P W]: how much oftener the best response holds each word than another one, for each pair of these."""
    pairs = [(c.responses[c.best], other) for c in comparisons for other in _others(c)]
    return _counts([best for best, _ in pairs], words) - _counts([other for _, other in pairs], words)


def _others(comparison: Comparison) -> list[str]:
    return [response for i, response in enumerate(comparison.responses) if i != comparison.best]


def _counts(texts: Sequence[str], words: Sequence[str]) -> scipy.sparse.csr_array:
    """Float[R W]: how often each text holds each word."""
    column = {word: i for i, word in enumerate(words)}
    found = [(row, column[word]) for row, text in enumerate(texts) for word in _words(text) if word in column]
    rows, columns = np.array(found, int).reshape(-1, 2).T
    return scipy.sparse.coo_array((np.ones(len(found)), (rows, columns)), (len(texts), len(words))).tocsr()


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text.lower())


def encode(tokenizer: Tokenizer, comparison: Comparison) -> tuple[list[int], list[list[int]]]:
    """The tokens of the conversation as plain text, and those of each response after it."""
    said = "".join(f"{NAMES[turn.role]}: {turn.content.strip()}\n\n" for turn in comparison.conversation)
    prompt = [tokenizer.bos_id, *tokenizer.encode(f"{said}{NAMES['assistant']}:")]
    return prompt, [tokenizer.encode(f" {response.strip()}") for response in comparison.responses]


def likelihoods(
    judge: Judge, comparisons: Sequence[Comparison], shapes: Sequence[int], batch_tokens: int
) -> Iterator[tuple[int, int, float, int]]:
    """For each response: (index of its comparison, its own, summed log-probability, tokens), by shape.

    Args:
      judge: holds the base model.
      comparisons: those asked for.
      shapes: lengths in tokens, ascending, that conversations and responses are padded to, and cut at the last of.
      batch_tokens: about how many tokens are read at once.
    """
    policy, layout = judge.models.policy, judge.models.layout
    waiting: dict[tuple[int, int], list] = collections.defaultdict(list)
    for index, comparison in enumerate(comparisons):
        prompt, responses = encode(policy.prompter.tokenizer, comparison)
        responses = [response[: shapes[-1]] for response in responses]
        prompt = prompt if len(prompt) <= shapes[-1] else [prompt[0], *prompt[1 - shapes[-1] :]]
        # By pairs, however many responses there are, so that few programs are compiled.
        for first in range(0, comparison.n, PAIR):
            pair = responses[first : first + PAIR]
            P, T = (next(s for s in shapes if size <= s) for size in (len(prompt), max(map(len, pair))))
            waiting[P, T].append((index, first, prompt, pair))

    @jax.jit
    def read(params, groups: Groups) -> jax.Array:
        with layout.constraints():
            found, _ = group_logprobs(params, policy.config, groups)
            return (found * completion_mask(groups)).sum(-1)

    for (P, T), work in sorted(waiting.items()):
        rows = layout.batch_shards * max(1, batch_tokens // (P + PAIR * T) // layout.batch_shards)
        for start in range(0, len(work), rows):
            batch = work[start : start + rows]
            spare = rows - len(batch)
            groups = batches.pack(
                [prompt for _, _, prompt, _ in batch] + [[0]] * spare,
                [pair for *_, pair in batch] + [[]] * spare,
                max_prompt=P,
                max_completion=T,
                group_size=PAIR,
            )
            sums = np.asarray(read(policy.params, groups), float)
            for (index, first, _, pair), row in zip(batch, sums, strict=False):
                yield from ((index, first + i, float(row[i]), len(response)) for i, response in enumerate(pair))


def read_likelihoods(path: str) -> dict[str, dict[str, tuple[float, ...]]]:
    """What `main` wrote: by way of counting, summed or per token, and by id, what each response gets."""
    rows = [row for _, row in read_jsonl(path)]
    summed = {row["id"]: tuple(row["logprobs"]) for row in rows}
    per_token = {row["id"]: tuple(p / t for p, t in zip(row["logprobs"], row["tokens"], strict=True)) for row in rows}
    return {"summed": summed, "per token": per_token}


def main(_) -> None:
    """Reads the responses and writes their log-probabilities."""
    try:
        shapes = sorted({int(size) for size in SHAPES.value})
    except ValueError:
        raise InputError(f"--shapes={','.join(SHAPES.value)}: not a list of numbers") from None
    if not shapes or shapes[0] < 2:
        raise InputError(f"--shapes={','.join(SHAPES.value)}: lengths must be at least 2")
    comparisons, _ = read_comparisons(INPUT.value)
    found = [{"id": c.id, "logprobs": [0.0] * c.n, "tokens": [0] * c.n} for c in comparisons]
    read = likelihoods(Judge.load(CHECKPOINT.value), comparisons, shapes, BATCH_TOKENS.value)
    for index, response, logprob, tokens in tqdm.tqdm(read, "likelihood", sum(c.n for c in comparisons), unit="response"):
        found[index]["logprobs"][response], found[index]["tokens"][response] = round(logprob, 4), tokens
    write_jsonl(OUTPUT.value, found)
    longest = sum(shapes[-1] in row["tokens"] for row in found)
    print(
        f"{OUTPUT.value}: {len(comparisons):,} comparisons, {longest:,} of them with a response of {shapes[-1]} tokens or more"
    )


if __name__ == "__main__":
    cli.run(main, FLAGS)
