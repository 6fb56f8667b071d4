"""Fields of the training stages."""

import dataclasses
from collections.abc import Iterator

from spct_jax.field_bounds import MOST, bounded, one_of

OPTIMIZERS = ("adam", "muon", "adafactor")
STORED_DTYPES = ("float32", "bfloat16")
POLICY_DATA = ("draws", "rollouts")


class Accumulating:
    """A stage whose steps are computed in `accumulate` micro-batches."""

    def conflicts(self, prefix: str) -> Iterator[str]:
        """What is wrong between the fields, a line each; see `field_bounds`."""
        if self.batch_size % self.accumulate:
            yield f"{prefix}accumulate={self.accumulate} does not divide {prefix}batch_size={self.batch_size}"


@dataclasses.dataclass
class OptimizerConfig:
    """Warm-up, plateau, linear decay and global-norm clipping around the optimiser (the papers state none of it)."""

    name: str = one_of("adam", OPTIMIZERS)
    """`adam`; `muon`: orthogonalised momentum for the matrices of the layers, Adam for the rest; `adafactor`: no momentum and a
    second moment by rows and columns, so next to no memory (`b1` and `b2` are ignored)."""
    learning_rate: float = bounded(1e-3, 0, 100, ends="(]")
    muon_learning_rate: float = bounded(0.02, 0, 100, ends="(]")
    warmup_steps: int = bounded(10, 0, MOST)
    decay_fraction: float = bounded(0.3, 0, 1)
    """Share of the steps, the last ones, over which the learning rate falls to a tenth."""
    b1: float = bounded(0.9, 0, 1, ends="[)")
    b2: float = bounded(0.95, 0, 1, ends="[)")
    mu_dtype: str = one_of("float32", STORED_DTYPES)
    """Dtype that Adam's first moment and Muon's momentum are kept in from step to step: `float32`, or `bfloat16` for half the
    memory (`adafactor` has neither)."""
    weight_decay: float = bounded(0.0, 0, 100)
    """Each step takes this times the learning rate off every parameter, whichever the optimiser."""
    clip_norm: float = bounded(1.0, 0, 1e9, ends="(]")


@dataclasses.dataclass
class SFTConfig(Accumulating):
    """Cold start on demonstrations."""

    steps: int = bounded(520, 1, MOST)
    batch_size: int = bounded(32, 1, 1 << 20)
    """Examples per step; each completion is one example, also where several share a prompt."""
    accumulate: int = bounded(1, 1, 1 << 20)
    """Gradients are taken of `batch_size / accumulate` examples at a time, and added up: less memory, the same step."""
    general_fraction: float = bounded(0.04, 0, 1)
    """Share of a step's examples that are general (non-judging) demonstrations."""
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(name="muon", learning_rate=4e-3, muon_learning_rate=0.012, decay_fraction=0.5)
    )


@dataclasses.dataclass
class RejectionConfig:
    """Rejection sampling (paper section 3.1): draws on the training comparisons, kept when correct by Eq. 10."""

    problems: int = bounded(1024, 0, MOST)
    """How many training comparisons completions are drawn for, chosen at random by the seed (0: all)."""
    samples: int = bounded(3, 1, 4096)
    """N_RFT: draws per comparison without a hint; more than one where RFT drops what is too easy."""
    hinted: bool = True
    """Whether one more completion is drawn with a hint that names the best response; RFT trains on it without the hint."""
    drop_too_easy: bool = True
    """Whether a comparison's unhinted draws are dropped when all of them are correct; hinted ones stay, as in the paper."""
    temperature: float = bounded(1.0, 0.01, 100)
    batch_size: int = bounded(256, 1, 1 << 20)
    """Comparisons that are drawn together and kept in one file; a run that is stopped draws a batch that was begun again."""
    slots: int = bounded(768, 0, 1 << 24)
    """As in `RLConfig`."""


@dataclasses.dataclass
class RFTConfig(Accumulating):
    """Rejective fine-tuning on the retained draws, mixed with demonstrations of general instructions."""

    steps: int = bounded(22, 1, MOST)
    batch_size: int = bounded(48, 1, 1 << 20)
    """As in `SFTConfig`."""
    accumulate: int = bounded(1, 1, 1 << 20)
    """As in `SFTConfig`."""
    general_fraction: float = bounded(0.1, 0, 1)
    """As in `SFTConfig`."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: OptimizerConfig(learning_rate=1e-3))


@dataclasses.dataclass
class RLConfig(Accumulating):
    """Rule-based GRPO (paper Eq. 11 and 15)."""

    steps: int = bounded(24, 1, MOST)
    batch_size: int = bounded(32, 1, 1 << 20)
    """Prompts per step."""
    drop_solved: bool = False
    """Whether to leave out comparisons whose unhinted rejection draws are all correct; comparisons without draws stay. Without
    a rejection stage all stay."""
    group_size: int = bounded(4, 2, 4096)
    """G: completions per prompt."""
    dynamic_sampling: int = bounded(1, 1, 64)
    """How many batches of prompts a step may draw to find `batch_size` groups with unequal rewards, of which it then learns
    (DAPO's dynamic sampling). It draws no more than it needs; where too few are found, groups with equal rewards fill the
    batch. 1: it learns from the batch that it draws, as in the paper."""
    temperature: float = bounded(1.0, 0.01, 100)
    """Rollout temperature; policy, old and reference log-probabilities are all taken at it."""
    reward: str = ""
    """What a verdict is worth: `FILE.py:FUNCTION`, called with its scores (None: not readable), the true scores, both in the
    order of the file, and its text; returns a finite number, always the same for the same. Empty: 1 if it is right, else -1."""
    kl_beta: float = bounded(0.08, 0, 1e6)
    """Weight of the k3 KL estimate in the loss."""
    clip: float = bounded(0.2, 0, 1, ends="()")
    """The surrogate clips probability ratios to 1 - clip .. 1 + clip."""
    updates_per_rollout: int = bounded(1, 1, 4096)
    """Updates that learn from the same completions."""
    rollout_lag: int = bounded(0, 0, 1)
    """1: completions of a step are drawn before the update of the step before, by a policy that is one step older; the ratio of
    the update is to that policy."""
    accumulate: int = bounded(1, 1, 1 << 20)
    """Gradients are taken of `batch_size / accumulate` prompts at a time, and added up: less memory, the same step. The
    reference scores the completions in the same micro-batches."""
    slots: int = bounded(128, 0, 1 << 24)
    """Branches decoded at once; a completion that ends makes room for the next, of the same prompt or another. With one for
    every completion all begin together. 0: as many as draw a step's completions soonest, by an estimate, and fit the memory of
    the devices that the stage is begun on."""
    ref_dtype: str = one_of("float32", STORED_DTYPES)
    """Dtype of the frozen reference policy's matrices: `float32`, or `bfloat16` for half the memory."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: OptimizerConfig(learning_rate=1.5e-4))


@dataclasses.dataclass
class MetaRMConfig(Accumulating):
    """Scalar RM that tells correct critiques from wrong ones, trained on rejection draws and on the policy's own verdicts."""

    steps: int = bounded(120, 1, MOST)
    batch_size: int = bounded(16, 1, 1 << 20)
    """Prompts per step; each comes with all completions drawn for it."""
    policy_data: str = one_of("rollouts", POLICY_DATA)
    """Which of the policy's verdicts it learns from, in addition to the unhinted rejection draws. `draws`, as in the paper:
    `rejection.samples` of the final policy for each comparison of rejection sampling. `rollouts`: all rollouts of RL, which
    cost nothing extra."""
    accumulate: int = bounded(1, 1, 1 << 20)
    """As in `RLConfig`."""
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(name="muon", learning_rate=3e-3, muon_learning_rate=0.01)
    )


@dataclasses.dataclass
class PreferenceConfig(Accumulating):
    """A scalar reward model that learns which response is best (the paper's BTRM and PairRM).

    Comparisons of a single response are left out. Of the others each gives the pairs of its best response with every other.
    """

    steps: int = bounded(400, 1, MOST)
    batch_size: int = bounded(32, 1, 1 << 20)
    """Comparisons per step; each comes with all its pairs."""
    accumulate: int = bounded(1, 1, 1 << 20)
    """As in `RLConfig`."""
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(name="muon", learning_rate=3e-3, muon_learning_rate=0.01)
    )


@dataclasses.dataclass
class CLoudConfig(PreferenceConfig):
    """CLoud: a second model that scores responses by critiques which the policy before it writes (a baseline of the paper)."""

    steps: int = bounded(135, 1, MOST)
    problems: int = bounded(2048, 0, MOST)
    """How many training comparisons of several responses it learns from, chosen at random by the seed (0: all)."""
    samples: int = bounded(1, 1, 4096)
    """Critiques drawn of each response; its score is their mean."""
    temperature: float = bounded(1.0, 0, 100)
    draw_batch_size: int = bounded(256, 1, 1 << 20)
    """Comparisons whose critiques are drawn together and kept in one file."""
    slots: int = bounded(256, 0, 1 << 24)
    """As in `RLConfig`."""


@dataclasses.dataclass
class CheckpointConfig:
    """When state is saved."""

    every_steps: int = bounded(20, 1, MOST)
    every_minutes: float = bounded(0.0, 0, 1e6)
    """Also save when this many minutes have passed since the last checkpoint; 0: only by steps."""
    keep: int = bounded(2, 1, MOST)
    """How many of the newest checkpoints are kept."""
    keep_hours: float = bounded(0.0, 0, 1e6)
    """In addition, one checkpoint per this many hours is kept for good; 0: none."""
    reuse_rollouts: bool = False
    """Keep the sampler's log-probabilities with RL's rollouts, and after a restart read what was drawn since the last
    checkpoint instead of drawing it again: for when drawing is expensive. On the same mesh the parameters are the same either
    way."""
