"""Experiments: typed dataclasses, one per concern, every field with its meaning and range, composed here."""

from spct_jax.config.presets import paper, tiny
from spct_jax.config.schema import BASELINES, POLICIES, SPCT, STAGES, Config, check_batches, check_positions, validate
from spct_jax.config.systems import SYSTEMS, as_system
from spct_jax.data.config import DATA_FILES, DataConfig
from spct_jax.evaluation.config import EvaluationConfig
from spct_jax.grm.config import PromptConfig
from spct_jax.models.config import ModelConfig
from spct_jax.sharding.config import STRATEGIES, MeshConfig
from spct_jax.toy.config import ToyConfig
from spct_jax.training.config import (
    CheckpointConfig,
    CLoudConfig,
    MetaRMConfig,
    OptimizerConfig,
    PreferenceConfig,
    RejectionConfig,
    RFTConfig,
    RLConfig,
    SFTConfig,
)

__all__ = [
    "BASELINES",
    "DATA_FILES",
    "POLICIES",
    "SPCT",
    "STAGES",
    "STRATEGIES",
    "SYSTEMS",
    "CLoudConfig",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "MeshConfig",
    "MetaRMConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PreferenceConfig",
    "PromptConfig",
    "RFTConfig",
    "RLConfig",
    "RejectionConfig",
    "SFTConfig",
    "ToyConfig",
    "as_system",
    "check_batches",
    "check_positions",
    "paper",
    "tiny",
    "validate",
]
