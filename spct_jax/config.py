"""What a run is made of: typed dataclasses, one per concern, every field with its meaning, and the tiny experiment.

They are frozen in spirit: command-line overrides are applied before a run begins, nothing changes them afterwards.
The range of every number stands beside it, see `bounds.py`.
"""

import dataclasses

from spct_jax.bounds import MOST, SEEDS, bounded, one_of
from spct_jax.models import sizes

OPTIMIZERS = ("adam", "muon", "adafactor")
REFERENCE_DTYPES = ("float32", "bfloat16")
STRATEGIES = ("data", "fsdp", "tensor", "fsdp_tensor", "multislice")
STAGES = ("sft", "rejection", "rft", "rl", "meta_rm", "evaluate")
POLICY_DATA = ("draws", "rollouts")
POLICIES = ("sft", "rft", "rl")
"""The stages that train the policy."""
DATA_FILES = ("train", "development", "test", "demonstrations", "general", "tokenizer")
"""Fields of `Config.data` that name files."""


@dataclasses.dataclass
class ToyConfig:
    """The procedural world of `data/toy.py`; used when `DataConfig.train` names no file."""

    seed: int = bounded(0, *SEEDS)
    """Seed of the problems themselves; the run's seed leaves the data alone, as it would with real data."""
    train: int = bounded(6000, 1, MOST)
    development: int = bounded(500, 0, MOST)
    test: int = bounded(2000, 0, MOST)
    response_counts: tuple[float, ...] = bounded((0.45, 0.35, 0.2), 0, 1e6)
    """Relative frequency of 2, 3 and 4 responses."""
    margin: int = bounded(2, 1, 8)
    """Least difference between the best and the second-best truth."""
    single_every: int = bounded(12, 0, MOST)
    """Every how many training problems one has a single response (0: none)."""
    lure_on_wrong: float = bounded(0.45, 0, 1)
    """Share of problems in which a wrong response mentions the lure."""
    lure_on_any: float = bounded(0.15, 0, 1)
    """Share in which any response may."""
    demonstrations: int = bounded(6000, 1, MOST)
    completions_per_demonstration: int = bounded(2, 1, 1024)
    demonstration_mix: tuple[float, ...] = bounded((0.8, 0.08, 0.12), 0, 1e6)
    """Relative frequency of compared, single-response and hinted demonstrations."""
    general: int = bounded(500, 0, MOST)
    """General-instruction demonstrations."""
    criterion_right: tuple[float, ...] = bounded((0.97, 0.94, 0.91), 0, 1)
    """How often the demonstrator's criterion is the requirement it stands for."""
    weights_wrong: float = bounded(0.04, 0, 1)
    """How often he shuffles the weights."""
    misread: float = bounded(0.015, 0, 1, ends="[)")
    """How often he misreads whether a response meets a criterion."""
    lure: tuple[float, float] = bounded((0.3, 0.995), 0, 1, ends="()")
    """How often he judges by the lure when some response mentions it: on the soberest and on the most festive occasion."""


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


@dataclasses.dataclass
class MeshConfig:
    """Devices; see `sharding.py`."""

    cpu_devices: int = bounded(2, 1, 4096)
    """Devices that the host's CPU is split into when there is no accelerator; about as many as cores is fastest."""
    strategy: str = one_of("data", STRATEGIES)
    """How parameters, optimiser state and rows are split over the devices. `data`: rows only. `fsdp`: parameters too, along
    their width. `tensor`: heads, feed-forward and vocabulary. `fsdp_tensor`: both. `multislice`: both in each slice."""
    tensor: int = bounded(1, 1, 1 << 20)
    """Devices that share the heads of a layer; more than 1 for `tensor`, `fsdp_tensor` and `multislice` only."""
    slices: int = bounded(1, 1, 1 << 20)
    """Slices of the pod, each with a copy of the parameters; more than 1 for `multislice` only."""
    rollout: str = one_of("same", ("same", "tensor"))
    """Where the parameters are while completions are drawn: `same`, or `tensor`, whole but for what `tensor` splits, so that
    no step of decoding gathers them."""
    heartbeat_seconds: int = bounded(100, 1, 1 << 20)
    """Of several processes, one that is silent for so long is given up and the others end."""


@dataclasses.dataclass
class PromptConfig:
    """The text contract: names in `grm/templates` or paths of files in the same format; the short ones unless said otherwise.

    In a `Config` an empty name stands for the template that `init_checkpoint` carries, or for the short one.
    """

    template: str = "short"
    single_template: str = "short_single"
    """For comparisons with one response and a 0/1 truth."""
    meta_template: str = "short_meta"
    choice_template: str = "short_judge"
    """For an LLM judge, which names the best response instead of scoring all of them."""


@dataclasses.dataclass
class OptimizerConfig:
    """Warm-up, plateau, linear decay and global-norm clipping around the optimiser (the papers state none of it)."""

    name: str = one_of("adam", OPTIMIZERS)
    """`adam`; `muon`: orthogonalised momentum for the matrices of the layers, Adam for the rest; `adafactor`: no momentum and a
    second moment by rows and columns, next to no memory (`b1` and `b2` do not count)."""
    learning_rate: float = bounded(1e-3, 0, 100, ends="(]")
    muon_learning_rate: float = bounded(0.02, 0, 100, ends="(]")
    warmup_steps: int = bounded(10, 0, MOST)
    decay_fraction: float = bounded(0.3, 0, 1)
    """Share of the steps, the last ones, over which the learning rate falls to a tenth."""
    b1: float = bounded(0.9, 0, 1, ends="[)")
    b2: float = bounded(0.95, 0, 1, ends="[)")
    weight_decay: float = bounded(0.0, 0, 100)
    clip_norm: float = bounded(1.0, 0, 1e9, ends="(]")


@dataclasses.dataclass
class SFTConfig:
    """Cold start on demonstrations."""

    steps: int = bounded(520, 1, MOST)
    batch_size: int = bounded(32, 1, 1 << 20)
    """Examples per step: completions, those of one prompt counted one by one."""
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
    """How many training comparisons are drawn on, a sample by the seed (0: all)."""
    samples: int = bounded(3, 1, 4096)
    """N_RFT: draws per comparison without a hint."""
    hinted: bool = True
    """Whether one more draw is made with the best response told; the hint is stripped from the target."""
    drop_too_easy: bool = True
    """Whether a comparison's unhinted draws are dropped when all of them are correct; hinted ones stay, as in the paper."""
    temperature: float = bounded(1.0, 0.01, 100)
    batch_size: int = bounded(256, 1, 1 << 20)
    """Comparisons per call of the sampler."""


@dataclasses.dataclass
class RFTConfig:
    """Rejective fine-tuning on the retained draws, mixed with demonstrations of general instructions."""

    steps: int = bounded(22, 1, MOST)
    batch_size: int = bounded(48, 1, 1 << 20)
    """As of `SFTConfig`."""
    accumulate: int = bounded(1, 1, 1 << 20)
    """As of `SFTConfig`."""
    general_fraction: float = bounded(0.1, 0, 1)
    """As of `SFTConfig`."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: OptimizerConfig(learning_rate=1e-3))


@dataclasses.dataclass
class RLConfig:
    """Rule-based GRPO (paper Eq. 11 and 15)."""

    steps: int = bounded(24, 1, MOST)
    batch_size: int = bounded(32, 1, 1 << 20)
    """Prompts per step."""
    drop_solved: bool = False
    """Whether comparisons are left out all of whose unhinted rejection draws are correct; those that were not drawn on stay.
    Without a rejection stage there is nothing to go by, and all stay."""
    group_size: int = bounded(4, 2, 4096)
    """G: completions per prompt."""
    temperature: float = bounded(1.0, 0.01, 100)
    """Rollout temperature; policy, old and reference log-probabilities are all taken at it."""
    kl_beta: float = bounded(0.08, 0, 1e6)
    """Weight of the k3 KL estimate in the loss."""
    clip: float = bounded(0.2, 0, 1, ends="()")
    """Ratios beyond 1 - clip and 1 + clip push no further."""
    updates_per_rollout: int = bounded(1, 1, 4096)
    """Updates that learn from the same completions."""
    accumulate: int = bounded(1, 1, 1 << 20)
    """Gradients are taken of `batch_size / accumulate` prompts at a time, and added up: less memory, the same step. The
    reference scores the completions in the same parts."""
    rollout_parts: int = bounded(1, 1, 1 << 20)
    """Completions are drawn in so many equal parts of the prompts, one after the other, to save the memory of caches."""
    ref_dtype: str = one_of("float32", REFERENCE_DTYPES)
    """Of the frozen reference policy's matrices: `float32`, or `bfloat16` for half the memory."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: OptimizerConfig(learning_rate=1.5e-4))


@dataclasses.dataclass
class MetaRMConfig:
    """Scalar RM that tells correct critiques from wrong ones, trained on rejection draws and on the policy's own verdicts."""

    steps: int = bounded(120, 1, MOST)
    batch_size: int = bounded(16, 1, 1 << 20)
    """Prompts per step; each comes with the whole group drawn for it."""
    policy_data: str = one_of("rollouts", POLICY_DATA)
    """The policy's verdicts it learns from, beside the unhinted rejection draws. `draws`, the paper's: `rejection.samples` of
    the final policy on each comparison that rejection sampling draws on. `rollouts`: all of RL, which cost nothing more."""
    accumulate: int = bounded(1, 1, 1 << 20)
    """As of `RLConfig`."""
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(name="muon", learning_rate=3e-3, muon_learning_rate=0.01)
    )


@dataclasses.dataclass
class EvaluationConfig:
    """Greedy accuracy after each stage, votes and guided votes at the end."""

    split: str = one_of("test", ("train", "development", "test"))
    problems: int = bounded(1500, 0, MOST)
    """How many of the split are evaluated, a sample by the seed (0: all)."""
    k: tuple[int, ...] = bounded((1, 8, 32), 1, 65536, length=(1, 64), ascending=True)
    temperature: float = bounded(1.0, 0, 100)
    """Sampling temperature of every vote; chosen on the development split, see docs/choices.md. At 0 votes of a comparison
    differ by the order of its responses only."""
    compare_temperatures: tuple[float, ...] = bounded((), 0, 100, length=(0, 64))
    """Other temperatures to report beside it (the paper's is 0.5)."""
    order: str = one_of("balanced", ("balanced", "random"))
    """`balanced` or `random` (the paper's)."""
    k_meta_fraction: float = bounded(0.5, 0, 1, ends="(]")
    """k_meta = this share of k (paper default: one half)."""
    buckets: tuple[tuple[int, int], ...] = bounded((), 1, 1 << 24, length=(0, 64), ascending=True)
    """Smaller shapes for votes, (longest prompt, longest completion) each, in ascending order: a comparison takes the first
    that its prompt fits in, else that of `data.max_prompt` and `data.max_completion`."""
    slots: int = bounded(1024, 1, 1 << 24)
    """Branches decoded at once."""
    texts: int = bounded(40, 0, MOST)
    """For how many problems the whole text of every verdict is kept."""


@dataclasses.dataclass
class CheckpointConfig:
    """When state is saved."""

    every_steps: int = bounded(20, 1, MOST)
    every_minutes: float = bounded(0.0, 0, 1e6)
    """Also when so many minutes have passed since the last one; 0: by steps only."""
    keep: int = bounded(2, 1, MOST)
    """The newest so many stay."""
    keep_hours: float = bounded(0.0, 0, 1e6)
    """Besides, one in so many hours stays for good; 0: none."""
    reuse_rollouts: bool = False
    """Keep the sampler's log-probabilities beside RL's rollouts, and after a restart read what was drawn since the last
    checkpoint instead of drawing it again, where that is dear. On the same mesh the parameters come out the same either way."""


@dataclasses.dataclass
class Config:
    """A whole experiment."""

    seed: int = bounded(0, *SEEDS)
    stages: tuple[str, ...] = STAGES
    init_checkpoint: str = ""
    """Model directory, of this library or in Hugging Face's layout, that the first training stage starts from: parameters,
    architecture (of `model` only `dtype`, `remat`, `time_chunk` and `attention` count then) and, unless `data.tokenizer`
    names one, tokenizer. Empty: random parameters.
    """
    model: sizes.ModelConfig = dataclasses.field(default_factory=lambda: sizes.toy(640))
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    prompt: PromptConfig = dataclasses.field(default_factory=lambda: PromptConfig("", "", "", ""))
    sft: SFTConfig = dataclasses.field(default_factory=SFTConfig)
    rejection: RejectionConfig = dataclasses.field(default_factory=RejectionConfig)
    rft: RFTConfig = dataclasses.field(default_factory=RFTConfig)
    rl: RLConfig = dataclasses.field(default_factory=RLConfig)
    meta_rm: MetaRMConfig = dataclasses.field(default_factory=MetaRMConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    profile_steps: tuple[int, int] = bounded((0, 0), 0, MOST)
    """(start, stop): a profiler trace of these steps of every training stage, in `workdir/profile/STAGE`; none where equal."""


def tiny() -> Config:
    """The tiny experiment: all of SPCT on the toy world in minutes on two CPU cores."""
    config = Config()
    # A verdict grows with its prompt, by a line per response: two, three and four of them make three groups of lengths.
    config.evaluation.buckets = ((68, 60), (80, 72))
    return config


def paper(model: sizes.ModelConfig) -> Config:
    """The paper's settings for a model of real size; what the paper leaves open is chosen here and said so beside it.

    Data, tokenizer and initial checkpoint are files of yours: `data.train`, `data.demonstrations`, .., `init_checkpoint`.
    """
    config = Config(model=model, init_checkpoint="checkpoints/base")
    config.data = DataConfig(
        train="data/train.jsonl",
        development="data/development.jsonl",
        test="data/test.jsonl",
        demonstrations="data/demonstrations.jsonl",
        general="data/general.jsonl",
        on_bad="skip",
        max_prompt=4096,
        max_completion=1024,
    )
    config.prompt = PromptConfig("default", "single", "meta", "judge")
    adam = OptimizerConfig(learning_rate=5e-6, warmup_steps=20, decay_fraction=1.0)
    # The paper draws its demonstrations from a larger model; this cold start is on yours. Length, batch and mixture are ours:
    # it must teach the form of a verdict, which most of the paper's 1,256 thousand examples do not show.
    config.sft = SFTConfig(steps=200, batch_size=256, general_fraction=0.5, optimizer=adam)
    config.rejection = RejectionConfig(problems=0, samples=3, batch_size=128)
    # 1,070 of 1,256 thousand examples are general instructions.
    config.rft = RFTConfig(steps=900, batch_size=1024, general_fraction=0.85, optimizer=adam)
    # The paper's 512 is read as rollouts: 128 prompts with four each. Temperature and clip are ours. The paper drops what
    # another, smaller model solves three times out of three.
    config.rl = RLConfig(
        steps=900,
        batch_size=128,
        drop_solved=True,
        ref_dtype="bfloat16",
        optimizer=dataclasses.replace(adam, learning_rate=4e-7),
    )
    # The paper's 512 critiques, or 528: three for each of 176 prompts, which 16 devices divide. The number of steps is ours.
    config.meta_rm = MetaRMConfig(
        steps=900, batch_size=176, policy_data="draws", optimizer=dataclasses.replace(adam, learning_rate=1e-5)
    )
    config.evaluation = EvaluationConfig(problems=0, temperature=0.5, slots=128)
    config.checkpoint = CheckpointConfig(every_steps=25, every_minutes=10, reuse_rollouts=True)
    return config
