"""An experiment, composed of the dataclasses in its packages' `config.py`."""

import dataclasses
from collections.abc import Iterator

from spct_jax import field_bounds
from spct_jax.data.config import DataConfig
from spct_jax.errors import InputError
from spct_jax.evaluation.config import EvaluationConfig
from spct_jax.field_bounds import MOST, SEEDS, bounded
from spct_jax.grm.config import PromptConfig
from spct_jax.models import sizes
from spct_jax.sharding.config import MeshConfig
from spct_jax.training.config import (
    Accumulating,
    CheckpointConfig,
    CLoudConfig,
    MetaRMConfig,
    PreferenceConfig,
    RejectionConfig,
    RFTConfig,
    RLConfig,
    SFTConfig,
)

SPCT = ("sft", "rejection", "rft", "rl", "meta_rm", "evaluate")
"""The stages of the method."""
BASELINES = ("btrm", "pairrm", "cloud")
"""The stages that train a scalar reward model of responses."""
STAGES = (*SPCT[:-1], *BASELINES, "evaluate")


POLICIES = ("sft", "rft", "rl")
"""The stages that train the policy."""
NEEDS = {"rft": ("rejection",), "meta_rm": ("rejection", "rl")}
"""Stages that learn from the completions of others; at least one of those must come before."""


@dataclasses.dataclass
class Config:
    """An experiment."""

    seed: int = bounded(0, *SEEDS)
    stages: tuple[str, ...] = SPCT
    init_checkpoint: str = ""
    """Model directory, of this library or in Hugging Face's layout, that the first training stage starts from: parameters,
    architecture (of `model` only `dtype`, `remat`, `time_chunk`, `attention` and `quantize` count then) and, unless
    `data.tokenizer` names one, tokenizer. Empty: random parameters.
    """
    model: sizes.ModelConfig = dataclasses.field(default_factory=lambda: sizes.toy(640))
    """Of random parameters; its `vocab_size` becomes the number of the tokenizer's pieces."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    prompt: PromptConfig = dataclasses.field(default_factory=lambda: PromptConfig("", "", "", ""))
    sft: SFTConfig = dataclasses.field(default_factory=SFTConfig)
    rejection: RejectionConfig = dataclasses.field(default_factory=RejectionConfig)
    rft: RFTConfig = dataclasses.field(default_factory=RFTConfig)
    rl: RLConfig = dataclasses.field(default_factory=RLConfig)
    meta_rm: MetaRMConfig = dataclasses.field(default_factory=MetaRMConfig)
    btrm: PreferenceConfig = dataclasses.field(default_factory=PreferenceConfig)
    pairrm: PreferenceConfig = dataclasses.field(default_factory=PreferenceConfig)
    cloud: CLoudConfig = dataclasses.field(default_factory=CLoudConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    profile_steps: tuple[int, int] = bounded((0, 0), 0, MOST)
    """(start, stop): a profiler trace of these steps of every training stage, in `workdir/profile/STAGE`; none where equal."""

    @property
    def longest_completion(self) -> int:
        """Tokens of the longest completion of any stage: pairrm's are two responses, cloud's a response and a critique."""
        data = self.data
        longer = {"pairrm": 2 * data.max_completion, "cloud": data.max_prompt + data.max_completion}
        return max([data.max_completion, *(longer[stage] for stage in self.stages if stage in longer)])

    def conflicts(self, prefix: str) -> Iterator[str]:
        """What is wrong between the sections, a line each; see `field_bounds`."""
        unknown = [s for s in self.stages if s not in STAGES]
        if unknown:
            yield f"{prefix}stages: unknown stage {unknown[0]!r}; stages are {', '.join(STAGES)}"
        if self.profile_steps[0] > self.profile_steps[1]:
            yield f"{prefix}profile_steps: {self.profile_steps} is not (start, stop) with start <= stop"
        for bucket in self.data.buckets:
            if bucket[0] > self.data.max_prompt or bucket[1] > self.longest_completion:
                longest = f"{prefix}data.max_prompt={self.data.max_prompt} and completions of {self.longest_completion} tokens"
                yield f"{prefix}data.buckets: {bucket} does not lie within {longest}"
        for bucket in self.evaluation.buckets:
            if bucket[0] > self.data.max_prompt or bucket[1] > self.data.max_completion:
                yield f"{prefix}evaluation.buckets: {bucket} does not lie within data.max_prompt and data.max_completion"
        if list(self.stages) != [s for s in STAGES if s in self.stages]:
            yield f"{prefix}stages: {', '.join(self.stages)} is not in the order {', '.join(STAGES)}"
        if "rft" in self.stages and self.rejection.drop_too_easy and self.rejection.samples == 1:
            yield (
                f"{prefix}rejection.samples=1: a comparison whose one draw is right counts as too easy, so rft learns from "
                f"no unhinted draw; draw more, or set {prefix}rejection.drop_too_easy=False"
            )
        yield from self._missing_stages(prefix)

    def _missing_stages(self, prefix: str) -> Iterator[str]:
        first = next((s for s in self.stages if s != "evaluate"), "sft")
        if first not in ("sft", "btrm", "pairrm") and not self.init_checkpoint:
            yield f"{prefix}stages: {first} needs a policy; put sft before it or set {prefix}init_checkpoint"
        for stage, sources in NEEDS.items():
            draws_itself = stage == "meta_rm" and self.meta_rm.policy_data == "draws"
            if stage in self.stages and not draws_itself and not set(sources) & set(self.stages):
                yield f"{prefix}stages: {stage} learns from what {' or '.join(sources)} draws; put that before it"
        judges = (*POLICIES, *BASELINES)
        if "evaluate" in self.stages and not set(judges) & set(self.stages):
            yield (
                f"{prefix}stages: evaluate judges with what {', '.join(judges)} trained in this run; put one of them before "
                "it, or judge with a finished model by python -m spct_jax.judge"
            )


def check_batches(config: Config, shards: int) -> None:
    """Raises InputError, naming the field, if the batches or micro-batches of a stage cannot be split evenly into so many."""
    for stage in config.stages:
        section = getattr(config, stage, None)
        if isinstance(section, Accumulating) and section.batch_size // section.accumulate % shards:
            what = "accumulate: a micro-batch" if section.accumulate > 1 else "batch_size: a batch"
            rows = section.batch_size // section.accumulate
            raise InputError(f"config.{stage}.{what} of {rows} cannot be split over {shards} devices; choose a multiple")


def validate(config: Config) -> None:
    """Raises InputError, naming the field, where a value is wrong or values do not go together."""
    field_bounds.check(config, "config.")


def check_positions(config: Config, model: sizes.ModelConfig) -> None:
    """Raises InputError if the prompts and completions of a run are longer than its model is made for."""
    data = config.data
    model.check_length(data.max_prompt, data.max_completion, "config.data.max_prompt and max_completion")
    if "pairrm" in config.stages:
        model.check_length(
            data.max_prompt, 2 * data.max_completion, "config.data.max_prompt and max_completion, twice for pairrm,"
        )
