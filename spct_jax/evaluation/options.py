"""How verdicts are drawn and voted."""

import dataclasses

from spct_jax.errors import InputError
from spct_jax.sampling.generate import bucket_of

MODES = ("scores", "choice", "token_prob")


@dataclasses.dataclass(frozen=True)
class Options:
    """How verdicts are drawn and voted."""

    k: int = 8
    """Samples per comparison; at most so many where `adaptive` is set."""
    k_meta: int = 0
    """Samples that count, those of highest meta reward; 0: all that parsed."""
    temperature: float = 0.5
    """0 is greedy."""
    seed: int = 0
    order: str = "balanced"
    """`balanced`, or `random` (the paper's)."""
    max_new_tokens: int = 1024
    """Where a critique is cut."""
    max_prompt: int = 8192
    """Tokens of the longest prompt; a longer one has no verdict."""
    batch_size: int = 16
    """Rows decoded at once, rounded up to a multiple of the devices; see `sampling.programs.Shape`."""
    top_k: int = 0
    top_p: float = 1.0
    mode: str = "scores"
    """`scores`: pointwise scores, summed. `choice`: an LLM judge names the best response, and votes count (Eq. 13).
    `token_prob`: as `choice`, each vote weighted by the probabilities of the responses' numbers."""
    adaptive: float = 0.0
    """Stop drawing when the chance that all k samples would give another verdict is estimated below this; 0: never."""
    rounds: int = 1
    """Samples in each round of an adaptive vote, in multiples of the responses, so that balanced orders stay so."""
    buckets: tuple[tuple[int, int], ...] = ()
    """(max_prompt, max_new_tokens) of the shapes, ascending; empty: powers of two up to `max_prompt`."""

    def __post_init__(self):
        for name in ("k", "max_new_tokens", "max_prompt", "batch_size", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.k_meta <= self.k:
            raise InputError(f"k_meta is {self.k_meta}; it must be within 0 and the {self.k} samples of k")
        if not self.temperature >= 0 or not 0 <= self.adaptive < 1:
            raise InputError(f"temperature ({self.temperature}) must be at least 0, adaptive ({self.adaptive}) within [0, 1)")
        if self.order not in ("balanced", "random"):
            raise InputError(f"order is {self.order!r}; balanced or random")
        if self.mode not in MODES:
            raise InputError(f"mode is {self.mode!r}; one of {', '.join(MODES)}")
        if self.adaptive and self.mode == "token_prob":
            raise InputError("adaptive and mode='token_prob' exclude each other: votes are weighted when all are drawn")
        if self.adaptive and self.k_meta:
            raise InputError("adaptive and k_meta exclude each other: which samples the meta RM keeps is known at the end only")

    @property
    def branches(self) -> int:
        """Branches of a row; the same for any number of votes, so that fewer samples are the first of more to the bit."""
        return 4 if self.k > 1 else 1

    @property
    def trunks(self) -> int:
        """Trunks of a row; a single sample leaves no stragglers to share a row with."""
        return 1 if self.k == 1 else 2

    def shape_of(self, length: int) -> tuple[int, int]:
        """(max_prompt, max_new_tokens) for prompts of up to `length` tokens; InputError if there is none."""
        for bucket in self.buckets:
            if length <= bucket[0]:
                return bucket
        if self.buckets or length > self.max_prompt:
            most = self.buckets[-1][0] if self.buckets else self.max_prompt
            raise InputError(f"prompt longer than the context ({length:,} tokens, {most:,} fit)")
        return min(bucket_of(length), self.max_prompt), self.max_new_tokens
