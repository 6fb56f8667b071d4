"""What a run is made of: typed dataclasses, one per concern, every field with its meaning, and the tiny experiment.

They are frozen in spirit: command-line overrides are applied before a run begins, nothing changes them afterwards.
"""

import dataclasses

from spct_jax.models import sizes

OPTIMIZERS = ("adam", "muon", "adafactor")
REFERENCE_DTYPES = ("float32", "bfloat16")
STRATEGIES = ("data", "fsdp", "tensor", "fsdp_tensor", "multislice")
STAGES = ("sft", "rejection", "rft", "rl", "meta_rm", "evaluate")
POLICIES = ("sft", "rft", "rl")
"""The stages that train the policy."""


@dataclasses.dataclass
class ToyConfig:
    """The procedural world of `data/toy.py`; used when `DataConfig.train` names no file."""

    seed: int = 0
    """Seed of the problems themselves; the run's seed leaves the data alone, as it would with real data."""
    train: int = 6000
    development: int = 500
    test: int = 2000
    response_counts: tuple[float, ...] = (0.45, 0.35, 0.2)
    """Relative frequency of 2, 3 and 4 responses."""
    margin: int = 2
    """Least difference between the best and the second-best truth."""
    single_every: int = 12
    """Every how many training problems one has a single response (0: none)."""
    lure_on_wrong: float = 0.45
    """Share of problems in which a wrong response mentions the lure."""
    lure_on_any: float = 0.15
    """Share in which any response may."""
    demonstrations: int = 6000
    completions_per_demonstration: int = 2
    demonstration_mix: tuple[float, ...] = (0.8, 0.08, 0.12)
    """Relative frequency of compared, single-response and hinted demonstrations."""
    general: int = 500
    """General-instruction demonstrations."""
    criterion_right: tuple[float, ...] = (0.97, 0.94, 0.91)
    """How often the demonstrator's criterion is the requirement it stands for."""
    weights_wrong: float = 0.04
    """How often he shuffles the weights."""
    misread: float = 0.015
    """How often he misreads whether a response meets a criterion."""
    lure: tuple[float, float] = (0.3, 0.995)
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
    vocab_size: int = 640
    """Size of a tokenizer that the run trains itself."""
    on_bad: str = "fatal"
    """What a malformed line does: `fatal` or `skip` (counted and reported)."""
    max_prompt: int = 104
    """Longest prompt in tokens; a longer one is reported and left out, never cut."""
    max_completion: int = 84
    """Longest completion in tokens, terminator included."""
    toy: ToyConfig = dataclasses.field(default_factory=ToyConfig)


@dataclasses.dataclass
class MeshConfig:
    """Devices; see `sharding.py`."""

    cpu_devices: int = 2
    """Devices that the host's CPU is split into when there is no accelerator; about as many as cores is fastest."""
    strategy: str = "data"
    """How parameters, optimiser state and rows are split over the devices. `data`: rows only. `fsdp`: parameters too, along
    their width. `tensor`: heads, feed-forward and vocabulary. `fsdp_tensor`: both. `multislice`: both in each slice."""
    tensor: int = 1
    """Devices that share the heads of a layer; more than 1 for `tensor`, `fsdp_tensor` and `multislice` only."""
    slices: int = 1
    """Slices of the pod, each with a copy of the parameters; more than 1 for `multislice` only."""
    rollout: str = "same"
    """Where the parameters are while completions are drawn: `same`, or `tensor`, whole but for what `tensor` splits, so that
    no step of decoding gathers them."""
    heartbeat_seconds: int = 100
    """Of several processes, one that is silent for so long is given up and the others end."""


@dataclasses.dataclass
class PromptConfig:
    """The text contract: names in `grm/templates` or paths of files in the same format."""

    template: str = "short"
    single_template: str = "short_single"
    """For comparisons with one response and a 0/1 truth."""
    meta_template: str = "short_meta"
    choice_template: str = "short_judge"
    """For an LLM judge, which names the best response instead of scoring all of them."""


@dataclasses.dataclass
class OptimizerConfig:
    """Warm-up, plateau, linear decay and global-norm clipping around the optimiser (the papers state none of it)."""

    name: str = "adam"
    """`adam`; `muon`: orthogonalised momentum for the matrices of the layers, Adam for the rest; `adafactor`: no momentum and a
    second moment by rows and columns, next to no memory (`b1` and `b2` do not count)."""
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02
    warmup_steps: int = 10
    decay_fraction: float = 0.3
    """Share of the steps, the last ones, over which the learning rate falls to a tenth."""
    b1: float = 0.9
    b2: float = 0.95
    weight_decay: float = 0.0
    clip_norm: float = 1.0


@dataclasses.dataclass
class SFTConfig:
    """Cold start on demonstrations."""

    steps: int = 520
    batch_size: int = 16
    """Prompts per step; each comes with all its demonstrated completions."""
    accumulate: int = 1
    """Parts of a step's prompts that gradients are taken of one after the other, and added up: less memory, the same step."""
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(name="muon", learning_rate=4e-3, muon_learning_rate=0.012, decay_fraction=0.5)
    )


@dataclasses.dataclass
class RejectionConfig:
    """Rejection sampling (paper section 3.1): draws on the training comparisons, kept when correct by Eq. 10."""

    problems: int = 1024
    """How many training comparisons are drawn on (0: all)."""
    samples: int = 3
    """N_RFT: draws per comparison without a hint."""
    hinted: bool = True
    """Whether one more draw is made with the best response told; the hint is stripped from the target."""
    drop_too_easy: bool = True
    """Whether the unhinted draws of a comparison are dropped when all of them are correct; hinted ones stay, as in the paper."""
    temperature: float = 1.0
    batch_size: int = 256
    """Comparisons per call of the sampler."""


@dataclasses.dataclass
class RFTConfig:
    """Rejective fine-tuning on the retained draws, mixed with demonstrations of general instructions."""

    steps: int = 22
    batch_size: int = 24
    accumulate: int = 1
    """As of `SFTConfig`."""
    general_fraction: float = 0.1
    """Share of a batch taken from general (non-judging) demonstrations."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: OptimizerConfig(learning_rate=1e-3))


@dataclasses.dataclass
class RLConfig:
    """Rule-based GRPO (paper Eq. 11 and 15)."""

    steps: int = 24
    batch_size: int = 32
    """Prompts per step."""
    group_size: int = 4
    """G: completions per prompt."""
    temperature: float = 1.0
    """Rollout temperature; policy, old and reference log-probabilities are all taken at it."""
    kl_beta: float = 0.08
    """Weight of the k3 KL estimate in the loss."""
    clip: float = 0.2
    """Ratios beyond 1 - clip and 1 + clip push no further."""
    updates_per_rollout: int = 1
    """Updates that learn from the same completions."""
    accumulate: int = 1
    """As of `SFTConfig`; the reference scores the completions in the same parts."""
    rollout_parts: int = 1
    """Completions are drawn in so many equal parts of the prompts, one after the other, to save the memory of caches."""
    ref_dtype: str = "float32"
    """Of the frozen reference policy's parameters: `float32`, or `bfloat16` for half the memory."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: OptimizerConfig(learning_rate=1.5e-4))


@dataclasses.dataclass
class MetaRMConfig:
    """Scalar RM that tells correct critiques from wrong ones, trained on rejection draws and RL rollouts."""

    steps: int = 120
    batch_size: int = 16
    """Prompts per step; each comes with the whole group drawn for it."""
    accumulate: int = 1
    """As of `SFTConfig`."""
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(name="muon", learning_rate=3e-3, muon_learning_rate=0.01)
    )


@dataclasses.dataclass
class EvaluationConfig:
    """Greedy accuracy after each stage, votes and guided votes at the end."""

    split: str = "test"
    problems: int = 1500
    """How many of the split are evaluated (0: all)."""
    k: tuple[int, ...] = (1, 8, 32)
    temperature: float = 1.0
    """Sampling temperature of every vote; chosen on the development split, see docs/choices.md."""
    compare_temperatures: tuple[float, ...] = ()
    """Other temperatures to report beside it (the paper's is 0.5)."""
    order: str = "balanced"
    """`balanced` or `random` (the paper's)."""
    k_meta_fraction: float = 0.5
    """k_meta = this share of k (paper default: one half)."""
    buckets: tuple[tuple[int, int], ...] = ()
    """Smaller shapes for votes, (longest prompt, longest completion) each, in ascending order: a comparison takes the first
    that its prompt fits in, else that of `data.max_prompt` and `data.max_completion`."""
    slots: int = 1024
    """Branches decoded at once."""
    texts: int = 40
    """For how many problems the whole text of every verdict is kept."""


@dataclasses.dataclass
class CheckpointConfig:
    """When state is saved."""

    every_steps: int = 20
    every_minutes: float = 0.0
    """Also when so many minutes have passed since the last one; 0: by steps only."""
    keep: int = 2
    """The newest so many stay."""
    keep_hours: float = 0.0
    """Besides, one in so many hours stays for good; 0: none."""
    reuse_rollouts: bool = False
    """Keep the sampler's log-probabilities beside RL's rollouts, and after a restart read what was drawn since the last
    checkpoint instead of drawing it again, where that is dear. On the same mesh the parameters come out the same either way."""


@dataclasses.dataclass
class Config:
    """A whole experiment."""

    seed: int = 0
    stages: tuple[str, ...] = STAGES
    init_checkpoint: str = ""
    """Model directory, of this library or in Hugging Face's layout, that the first training stage starts from: parameters,
    architecture (of `model` only `dtype`, `remat`, `time_chunk` and `attention` count then) and, unless `data.tokenizer`
    names one, tokenizer. Empty: random parameters.
    """
    model: sizes.ModelConfig = dataclasses.field(default_factory=lambda: sizes.toy(640))
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    prompt: PromptConfig = dataclasses.field(default_factory=PromptConfig)
    sft: SFTConfig = dataclasses.field(default_factory=SFTConfig)
    rejection: RejectionConfig = dataclasses.field(default_factory=RejectionConfig)
    rft: RFTConfig = dataclasses.field(default_factory=RFTConfig)
    rl: RLConfig = dataclasses.field(default_factory=RLConfig)
    meta_rm: MetaRMConfig = dataclasses.field(default_factory=MetaRMConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    profile_steps: tuple[int, int] = (0, 0)
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
    # The paper draws its demonstrations from a larger model; this cold start is on yours. Length and batch are ours.
    config.sft = SFTConfig(steps=200, batch_size=256, optimizer=adam)
    config.rejection = RejectionConfig(problems=0, samples=3, batch_size=128)
    # 1,070 of 1,256 thousand examples are general instructions.
    config.rft = RFTConfig(steps=900, batch_size=1024, general_fraction=0.85, optimizer=adam)
    # The paper's 512 is read as rollouts: 128 prompts with four each. Temperature and clip are ours.
    config.rl = RLConfig(
        steps=900, batch_size=128, ref_dtype="bfloat16", optimizer=dataclasses.replace(adam, learning_rate=4e-7)
    )
    # 512 critiques; the number of steps is ours.
    config.meta_rm = MetaRMConfig(steps=900, batch_size=128, optimizer=dataclasses.replace(adam, learning_rate=1e-5))
    config.evaluation = EvaluationConfig(problems=0, temperature=0.5, slots=128)
    config.checkpoint = CheckpointConfig(every_steps=25, every_minutes=10, reuse_rollouts=True)
    return config
