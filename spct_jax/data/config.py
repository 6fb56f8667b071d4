"""Where comparisons and demonstrations come from."""

import dataclasses
from collections.abc import Iterator

from spct_jax.field_bounds import bounded, one_of
from spct_jax.toy.config import ToyConfig

DATA_FILES = ("train", "development", "test", "demonstrations", "general", "tokenizer")
"""Fields of `Config.data` that name files."""


@dataclasses.dataclass
class DataConfig:
    """Where comparisons and demonstrations come from."""

    train: str = ""
    """JSONL of comparisons for rejection sampling, RL and the meta RM; empty: the toy world."""
    development: str = ""
    """JSONL of comparisons to choose settings on."""
    test: str = ""
    """JSONL of comparisons for the final figures."""
    demonstrations: str = ""
    """JSONL of cold-start demonstrations of judging."""
    general: str = ""
    """JSONL of general-instruction demonstrations."""
    tokenizer: str = ""
    """SentencePiece model; empty: that of `init_checkpoint`, or one that is trained on all demonstrations."""
    vocab_size: int = bounded(640, 1, 1 << 24)
    """Size of a tokenizer that the run trains itself."""
    on_bad: str = one_of("fatal", ("fatal", "skip"))
    """What a malformed line does: `fatal` or `skip` (counted and reported)."""
    max_prompt: int = bounded(104, 2, 1 << 24)
    """Longest prompt in tokens, in any order of its responses; a longer one is reported and left out, never cut."""
    max_completion: int = bounded(84, 1, 1 << 24)
    """Longest completion in tokens, terminator included."""
    toy: ToyConfig = dataclasses.field(default_factory=ToyConfig)

    def conflicts(self, prefix: str) -> Iterator[str]:
        """What is wrong between the fields, a line each; see `field_bounds`."""
        for name in DATA_FILES:
            if getattr(self, name) and not self.train and name != "tokenizer":
                yield f"{prefix}{name}: names a file, but without {prefix}train the toy world is read, not files"
