"""Where comparisons and demonstrations come from."""

import dataclasses
from collections.abc import Iterator

from spct_jax.field_bounds import MOST, bounded, one_of
from spct_jax.toy.config import ToyConfig

SOURCES = ("train", "development", "test", "demonstrations", "general")
"""Fields of `Config.data` that name sources of records."""
DATA_FILES = (*SOURCES, "tokenizer")
"""Fields of `Config.data` that name files."""
SPLITS = ("train", "development", "test")
"""Those of comparisons."""


@dataclasses.dataclass
class DataConfig:
    """Where comparisons and demonstrations come from.

    A source is LAYOUT:PATH (such as `hh_rlhf:data/*.jsonl.gz`), LAYOUT:tfds:NAME:SPLIT, jsonl:PATH, parquet:PATH or
    tfds:NAME:SPLIT with the project's own records, `toy:`, or a path; see docs/data.md.
    """

    train: str = ""
    """Comparisons for rejection sampling, RL and the meta RM; empty or `toy:`: the toy world, whose records then also stand in
    for every other field that names no source."""
    development: str = ""
    """Comparisons to choose settings on."""
    test: str = ""
    """Comparisons for the final figures."""
    demonstrations: str = ""
    """Cold-start demonstrations of judging."""
    general: str = ""
    """General-instruction demonstrations."""
    data_dir: str = ""
    """Where prepared tfds datasets lie; empty: where tfds looks (TFDS_DATA_DIR or ~/tensorflow_datasets)."""
    fields: tuple[str, ...] = ()
    """OURS=THEIRS, such as `prompt=question`: rows have under the name THEIRS what their layout calls OURS."""
    tokenizer: str = ""
    """SentencePiece model with byte fallback and the control pieces `tokenizer.CONTROL`, such as `train_tokenizer` makes.
    Empty: that of `init_checkpoint`, or one that is trained on all demonstrations."""
    vocab_size: int = bounded(640, 1, 1 << 24)
    """Size of a tokenizer that the run trains itself."""
    on_bad: str = one_of("fatal", ("fatal", "skip"))
    """What a malformed row does: `fatal` or `skip` (counted and reported)."""
    max_prompt: int = bounded(104, 2, 1 << 24)
    """Longest prompt in tokens, in any order of its responses; a longer one is reported and left out, never cut."""
    max_completion: int = bounded(84, 1, 1 << 24)
    """Longest completion in tokens, terminator included."""
    buckets: tuple[tuple[int, int], ...] = bounded((), 2, 1 << 24, length=(0, 64), ascending=True)
    """Smaller shapes for updates, (longest prompt, longest completion) each, in ascending order: a micro-batch is computed at
    the one with the fewest slots that holds its rows, else at `max_prompt` and `max_completion`. The completions of a group
    lie one behind the other, so their mean length counts; of prompts, what follows the template's preamble counts. Empty: each
    stage chooses its own from its data."""
    num_buckets: int = bounded(24, 1, 64)
    """Most shapes that a stage chooses, the largest among them; 1: one shape for all. It has eight, or as many more as it takes
    until an eighth of the slots is empty. Beside the largest there are not more than a step has micro-batches (`accumulate`),
    all rows of which have one shape. The toy world, without `train`, has one shape."""
    split: tuple[float, ...] = bounded((), 0, 1, length=(0, 3))
    """Fractions of the prompts of `train` that are for training, development and test, by a hash of the prompt: none is in two
    splits. Empty: all are for training. A split that gets 0 may have a source of its own."""
    deduplicate: bool = False
    """Whether of several records of a field that say the same only the first is used; see `fingerprints.of`."""
    decontaminate: tuple[str, ...] = ()
    """Benchmarks, as sources: what has 13 words in a row of a prompt of theirs is not trained on; see `contamination`."""
    responses: tuple[int, int] = bounded((1, MOST), 1, MOST)
    """Fewest and most responses of a training comparison; others are left out and counted."""
    toy: ToyConfig = dataclasses.field(default_factory=ToyConfig)

    @property
    def is_toy(self) -> bool:
        """Whether all records are those that the toy world makes, in its own splits: then `toy:` says no more than nothing."""
        others = [getattr(self, name) for name in SOURCES[1:]]
        used_as_they_are = not (self.split or self.deduplicate or self.decontaminate)
        return self.train in ("", "toy:") and used_as_they_are and all(not text or text.startswith("toy:") for text in others)

    def conflicts(self, prefix: str) -> Iterator[str]:
        """What is wrong between the fields, a line each; see `field_bounds`."""
        if self.responses[0] > self.responses[1]:
            yield f"{prefix}responses: {self.responses} is not (fewest, most) with fewest <= most"
        for name in SOURCES:
            source = getattr(self, name)
            if source and not source.startswith("toy:") and not self.train:
                yield f"{prefix}{name}: names a source, but without {prefix}train the toy world is read"
        named = [field.partition("=")[0] for field in self.fields]
        for field in self.fields:
            ours, equals, theirs = field.partition("=")
            if not (ours and equals and theirs):
                yield f"{prefix}fields: {field!r} does not say OURS=THEIRS, such as prompt=question"
            elif named.count(ours) > 1:
                yield f"{prefix}fields: {field!r} is one of {named.count(ours)} names for {ours}"
        for name in ("split", "deduplicate", "decontaminate"):
            if getattr(self, name) and not self.train:
                yield f"{prefix}{name}: is for files, but without {prefix}train the toy world is read"
        yield from self._split_conflicts(prefix)

    def _split_conflicts(self, prefix: str) -> Iterator[str]:
        if not self.split:
            return
        if len(self.split) != 3 or abs(sum(self.split) - 1) > 1e-6 or not self.split[0]:
            yield f"{prefix}split: {self.split} is not (train, development, test) with the sum 1 and the first above 0"
            return
        for name, fraction in zip(SPLITS[1:], self.split[1:], strict=True):
            if fraction and getattr(self, name):
                yield f"{prefix}{name}: has a source of its own, but {prefix}split gives it {fraction:g} of {prefix}train, too"
