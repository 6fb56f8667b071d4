"""A run: plain data that every stage is given."""

import dataclasses
import zlib
from collections.abc import Sequence

import jax
import numpy as np

from spct_jax import sharding
from spct_jax.config import Config, check_batches
from spct_jax.data.comparison import Comparison
from spct_jax.data.demonstration import Demonstration
from spct_jax.data.index import Records
from spct_jax.data.jsonl import ReadReport
from spct_jax.grm import rewards
from spct_jax.grm.prompts import Prompter
from spct_jax.grm.rewards import Reward
from spct_jax.models.config import ModelConfig
from spct_jax.sharding import Layout
from spct_jax.storage.paths import Path


@dataclasses.dataclass(frozen=True)
class Dataset:
    """All records of a run."""

    train: Records[Comparison]
    development: Records[Comparison]
    test: Records[Comparison]
    demonstrations: Records[Demonstration]
    general: Records[Demonstration]
    reports: dict[str, ReadReport]
    """Per file or split: records read, used, skipped and why."""
    responses: np.ndarray | None = None
    """Number of responses of each training comparison, known once misfits are dropped."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Shapes and stop set of every program of a run."""

    max_prompt: int
    max_completion: int
    stop_ids: tuple[int, ...]

    @property
    def lengths(self) -> tuple[int, int]:
        """The longest prompt and completion."""
        return self.max_prompt, self.max_completion


@dataclasses.dataclass(frozen=True)
class Run:
    """What every stage is given; `data`, `packing` and `parameters` work on it."""

    config: Config
    workdir: Path
    dataset: Dataset
    prompter: Prompter
    model: ModelConfig
    layout: Layout
    """The layout of updates."""
    rollout_layout: Layout
    reward: Reward = rewards.reward
    """What a verdict is worth in RL."""

    @property
    def limits(self) -> Limits:
        """Shapes and stop set of every program."""
        data = self.config.data
        return Limits(data.max_prompt, data.max_completion, self.prompter.tokenizer.stop_ids)

    def key(self, stage: str, step: int = 0) -> jax.Array:
        """The random key of a step of a stage."""
        stage_key = jax.random.fold_in(jax.random.key(self.config.seed), zlib.crc32(stage.encode()))
        return jax.random.fold_in(stage_key, step)


def make_layouts(config: Config, devices: Sequence[jax.Device] | None = None) -> tuple[Layout, Layout]:
    """The layouts of updates and of rollouts, on `devices` or on all that JAX sees.

    Raises:
      InputError: the devices cannot be arranged as the config says, or a batch cannot be split evenly over them; names its
        field.
    """
    layout = sharding.make_layout(config.mesh, devices)
    check_batches(config, layout.batch_shards)
    return layout, sharding.rollout_layout(layout, config.mesh)
