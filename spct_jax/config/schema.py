"""A whole experiment, composed of the dataclasses that lie beside their owners."""

import dataclasses

from spct_jax.bounds import MOST, SEEDS, bounded
from spct_jax.data.config import DataConfig
from spct_jax.evaluation.config import EvaluationConfig
from spct_jax.grm.config import PromptConfig
from spct_jax.models import sizes
from spct_jax.sharding.config import MeshConfig
from spct_jax.training.config import CheckpointConfig, MetaRMConfig, RejectionConfig, RFTConfig, RLConfig, SFTConfig

STAGES = ("sft", "rejection", "rft", "rl", "meta_rm", "evaluate")


POLICIES = ("sft", "rft", "rl")
"""The stages that train the policy."""


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
