"""What is wrong with a configuration: ranges of its fields, and what must hold between them. Every error names the field."""

import dataclasses

from spct_jax import bounds
from spct_jax.config import POLICIES, STAGES, Config
from spct_jax.data.config import DATA_FILES
from spct_jax.errors import InputError
from spct_jax.models.config import ModelConfig
from spct_jax.sharding.config import MeshConfig

NEEDS = {"rft": ("rejection",), "meta_rm": ("rejection", "rl")}
"""Stages that learn from what others have drawn, one of them at least."""


def validate(config: Config) -> None:
    """Checks all fields, each alone and then together; raises InputError naming the field."""
    bounds.check(config, "config.")
    dataclasses.replace(config.model)
    unknown = [s for s in config.stages if s not in STAGES]
    if unknown:
        raise InputError(f"config.stages: unknown stage {unknown[0]!r}; stages are {', '.join(STAGES)}")
    for stage in ("sft", "rft", "rl", "meta_rm"):
        batch_size, parts = getattr(config, stage).batch_size, getattr(config, stage).accumulate
        if batch_size % parts:
            raise InputError(f"config.{stage}.accumulate: {parts} parts do not divide batch_size={batch_size}")
    if config.rl.batch_size % config.rl.rollout_parts:
        parts, batch_size = config.rl.rollout_parts, config.rl.batch_size
        raise InputError(f"config.rl.rollout_parts: {parts} parts do not divide batch_size={batch_size}")
    if config.profile_steps[0] > config.profile_steps[1]:
        raise InputError(f"config.profile_steps: {config.profile_steps} is not (start, stop) with start <= stop")
    for name in ("response_counts", "demonstration_mix"):
        if not any(getattr(config.data.toy, name)):
            raise InputError(f"config.data.toy.{name}: one of the frequencies must be above 0")
    for name in DATA_FILES:
        if getattr(config.data, name) and not config.data.train and name != "tokenizer":
            raise InputError(
                f"config.data.{name}: names a file, but without config.data.train the toy world is read, not files"
            )
    check_mesh(config.mesh)
    for bucket in config.evaluation.buckets:
        if bucket[0] > config.data.max_prompt or bucket[1] > config.data.max_completion:
            raise InputError(f"config.evaluation.buckets: {bucket} does not lie within data.max_prompt and data.max_completion")
    if list(config.stages) != [s for s in STAGES if s in config.stages]:
        raise InputError(f"config.stages: {', '.join(config.stages)} is not in the order {', '.join(STAGES)}")
    first = next((s for s in config.stages if s != "evaluate"), "sft")
    if first != "sft" and not config.init_checkpoint:
        raise InputError(f"config.stages: {first} needs a policy; put sft before it or set config.init_checkpoint")
    for stage, sources in NEEDS.items():
        draws_itself = stage == "meta_rm" and config.meta_rm.policy_data == "draws"
        if stage in config.stages and not draws_itself and not set(sources) & set(config.stages):
            raise InputError(f"config.stages: {stage} learns from what {' or '.join(sources)} draws; put that before it")
    if "evaluate" in config.stages and not set(POLICIES) & set(config.stages):
        raise InputError(
            f"config.stages: evaluate judges with what {', '.join(POLICIES)} trained in this run; put one of them before it, "
            "or judge with a finished model by python -m spct_jax.judge"
        )


def check_positions(config: Config, model: ModelConfig) -> None:
    """Raises InputError if the prompts and completions of a run are longer than its model is made for."""
    model.check_length(config.data.max_prompt, config.data.max_completion, "config.data.max_prompt and max_completion")


def check_mesh(mesh: MeshConfig, prefix: str = "config.mesh.") -> None:
    """Checks a mesh; raises InputError naming the field, with what stands before it on the command line."""
    bounds.check(mesh, prefix)
    for field, strategies in (("tensor", ("tensor", "fsdp_tensor", "multislice")), ("slices", ("multislice",))):
        value = getattr(mesh, field)
        if value > 1 and mesh.strategy not in strategies:
            raise InputError(f"{prefix}{field}: {value} does not go with strategy={mesh.strategy!r}")
