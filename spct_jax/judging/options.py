"""How critiques are drawn and turned into verdicts: the options of `Judge.score` and, as flags, of the judge command."""

import dataclasses
import math
import numbers

from spct_jax import field_bounds
from spct_jax.errors import InputError
from spct_jax.field_bounds import MOST, SEEDS, bounded, one_of
from spct_jax.models.config import ModelConfig
from spct_jax.sampling.engine_shape import branches_of, padded_prompt

LONGEST_PROMPT = 8192
"""Tokens of the longest prompt where nothing else limits it."""
MODES = ("scores", "choice", "token_prob")
READS = ("sampled", "expected")


@dataclasses.dataclass(frozen=True)
class Options:
    """How critiques are drawn and turned into verdicts."""

    k: int = bounded(8, 1, 65536)
    """Samples per comparison; the most there can be where `adaptive` is set."""
    k_meta: int = bounded(0, 0, 65536)
    """How many samples count, those with the highest meta rewards; 0: all that parsed."""
    temperature: float = bounded(0.5, 0, 100)
    """0, or less than 1e-5, is greedy."""
    seed: int = bounded(0, *SEEDS)
    order: str = one_of("balanced", ("balanced", "random"))
    """`balanced`, or `random` (the paper's)."""
    max_new_tokens: int = bounded(1024, 1, 1 << 24)
    """Tokens after which a critique is cut."""
    max_prompt: int = bounded(0, 0, 1 << 24)
    """Tokens of the longest prompt; a longer one has no verdict. 0: what the model's positions leave, 8,192 at most."""
    batch_size: int = bounded(0, 0, 1 << 20)
    """Rows decoded at once, rounded up to a multiple of the devices; see `sampling.Shape`. 0: rows and branches are chosen for
    the memory of the devices, see `sampling.engine_size`."""
    memory: int = bounded(0, 0, 1 << 60)
    """Bytes of a device that they are chosen for; 0: those that it has."""
    top_k: int = bounded(0, 0, MOST)
    top_p: float = bounded(1.0, 0, 1, ends="(]")
    mode: str = one_of("scores", MODES)
    """`scores`: pointwise scores, summed. `choice`: an LLM judge names the best response, and votes count (Eq. 13).
    `token_prob`: as `choice`, each vote weighted by the probabilities of the responses' numbers."""
    read: str = one_of("sampled", READS)
    """What a critique's vote is: `sampled`, the integers it holds, or `expected`, the means over all that could be there; see
    `judging.expected`."""
    adaptive: float = bounded(0.0, 0, 1, ends="[)")
    """Stop drawing once the estimated chance that all k samples would give another verdict is below this; 0: never."""
    share_principles: bool = False
    """Whether the principles of the first critique that has some are those of all later ones of its comparison."""
    rounds: int = bounded(1, 1, 65536)
    """Samples in each round of an adaptive vote, as a multiple of the number of responses, so that orders stay balanced."""
    buckets: tuple[tuple[int, int], ...] = bounded((), 1, 1 << 24, length=(0, 64), ascending=True)
    """(max_prompt, max_new_tokens) of the shapes, ascending. Empty: a power of two of tokens of a prompt, behind the
    preamble of its template where that is computed once, and `max_prompt` at most."""

    def __post_init__(self):
        for name, value in vars(self).items():
            if isinstance(value, numbers.Number) and hasattr(value, "item"):  # of NumPy's, as of `arange`
                object.__setattr__(self, name, value.item())
        field_bounds.check(self)
        if self.k_meta > self.k:
            raise InputError(f"k_meta: {self.k_meta} is more than the {self.k} samples of k")
        if self.adaptive and self.mode == "token_prob":
            raise InputError("adaptive and mode='token_prob' exclude each other: votes are weighted when all are drawn")
        if self.read == "expected" and self.mode != "scores":
            raise InputError(f"read='expected' and mode={self.mode!r} exclude each other: an LLM judge's choice is no score")
        if self.adaptive and self.read == "expected":
            raise InputError("adaptive and read='expected' exclude each other: expected scores are read when all are drawn")
        if self.adaptive and self.k_meta:
            raise InputError("adaptive and k_meta exclude each other: which samples the meta RM keeps is known at the end only")

    @property
    def branches(self) -> int:
        """Branches of one of `batch_size` rows."""
        return branches_of(self.k)

    def samples_at_once(self, n: int) -> int:
        """Samples of one order that are asked for together where there are n responses; of several orders, the fewest."""
        together = min(self.rounds * n, self.k) if self.adaptive else self.k
        return max(together // (n if self.order == "balanced" else math.factorial(n)), 1)

    def siblings(self, n: int) -> int:
        """How many prompts of a comparison of n responses are computed together: one for each of its balanced orders."""
        return min(self.k, n)

    @property
    def rescores(self) -> bool:
        """Whether critiques are read once more when they are drawn: by the meta RM, or for probabilities of what they say."""
        return bool(self.k_meta) or self.mode == "token_prob" or self.read == "expected"

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that has a shape."""
        return self.buckets[-1][0] if self.buckets else self.max_prompt

    def for_model(self, config: ModelConfig) -> "Options":
        """The same with `max_prompt` set, for a model.

        Raises:
          InputError: prompts and critiques of these lengths have more tokens than the model has positions.
        """
        known, new = config.max_positions, self.max_new_tokens
        if 0 < known <= new and not self.longest_prompt:
            raise InputError(f"max_new_tokens: {new:,} leave no room for a prompt, since the model has {known:,} positions")
        most = min(LONGEST_PROMPT, max(known - new, 1)) if known else LONGEST_PROMPT
        options = dataclasses.replace(self, max_prompt=self.max_prompt or most)
        for prompt, completion in self.buckets or ((options.max_prompt, new),):
            config.check_length(prompt, completion, "max_prompt and max_new_tokens")
        return options

    def lengths(self, length: int, preamble: int = 0) -> tuple[int, int]:
        """(max_prompt, max_new_tokens) of the shape for prompts of up to `length` tokens; InputError if there is none.

        Where no buckets are given, what follows a preamble of so many tokens is padded, and not that.
        """
        if length > self.longest_prompt:
            raise InputError(f"prompt longer than the context (more than {self.longest_prompt:,} tokens)")
        fitting = (bucket for bucket in self.buckets if length <= bucket[0])
        return next(fitting, (min(padded_prompt(length, preamble), self.max_prompt), self.max_new_tokens))
