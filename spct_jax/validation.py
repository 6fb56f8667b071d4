"""What is wrong with a configuration, beyond the types of its fields; every error names the field."""

import functools

from spct_jax.config import OPTIMIZERS, POLICIES, REFERENCE_DTYPES, STAGES, STRATEGIES, Config, MeshConfig
from spct_jax.errors import InputError

NEEDS = {"rft": ("rejection",), "meta_rm": ("rejection", "rl")}
"""Stages that learn from what others have drawn, one of them at least."""

LEAST = {
    "checkpoint.every_steps": 1,
    "checkpoint.every_minutes": 0,
    "checkpoint.keep": 1,
    "checkpoint.keep_hours": 0,
    "rl.group_size": 1,
    "rl.updates_per_rollout": 1,
    "rejection.samples": 1,
    "evaluation.slots": 1,
    "mesh.heartbeat_seconds": 1,
}
"""Fields and the least value of each."""


def validate(config: Config) -> None:
    """Checks what types alone do not; raises InputError naming the field."""
    unknown = [s for s in config.stages if s not in STAGES]
    if unknown:
        raise InputError(f"config.stages: unknown stage {unknown[0]!r}; stages are {', '.join(STAGES)}")
    for stage in ("sft", "rft", "rl", "meta_rm"):
        name = getattr(config, stage).optimizer.name
        if name not in OPTIMIZERS:
            raise InputError(f"config.{stage}.optimizer.name: {name!r} is none of {', '.join(OPTIMIZERS)}")
        batch_size, parts = getattr(config, stage).batch_size, getattr(config, stage).accumulate
        if parts < 1 or batch_size % parts:
            raise InputError(f"config.{stage}.accumulate: {parts} parts do not divide batch_size={batch_size}")
    if config.rl.rollout_parts < 1 or config.rl.batch_size % config.rl.rollout_parts:
        parts, batch_size = config.rl.rollout_parts, config.rl.batch_size
        raise InputError(f"config.rl.rollout_parts: {parts} parts do not divide batch_size={batch_size}")
    if config.rl.ref_dtype not in REFERENCE_DTYPES:
        raise InputError(f"config.rl.ref_dtype: {config.rl.ref_dtype!r} is none of {', '.join(REFERENCE_DTYPES)}")
    if len(config.profile_steps) != 2 or not 0 <= config.profile_steps[0] <= config.profile_steps[1]:
        raise InputError(f"config.profile_steps: {config.profile_steps} is not (start, stop) with 0 <= start <= stop")
    if not all(0 < rate < 1 for rate in config.data.toy.lure):
        raise InputError(f"config.data.toy.lure: {config.data.toy.lure} are not two rates between 0 and 1")
    check_mesh(config.mesh)
    for bucket in config.evaluation.buckets:
        if len(bucket) != 2 or bucket[0] > config.data.max_prompt or bucket[1] > config.data.max_completion:
            raise InputError(
                f"config.evaluation.buckets: {bucket} is not a (prompt, completion) pair within data.max_prompt and "
                "data.max_completion"
            )
    if list(config.stages) != [s for s in STAGES if s in config.stages]:
        raise InputError(f"config.stages: {', '.join(config.stages)} is not in the order {', '.join(STAGES)}")
    first = next((s for s in config.stages if s != "evaluate"), "sft")
    if first != "sft" and not config.init_checkpoint:
        raise InputError(f"config.stages: {first} needs a policy; put sft before it or set config.init_checkpoint")
    for stage, sources in NEEDS.items():
        if stage in config.stages and not set(sources) & set(config.stages):
            raise InputError(f"config.stages: {stage} learns from what {' or '.join(sources)} draws; put that before it")
    if "evaluate" in config.stages and not set(POLICIES) & set(config.stages):
        raise InputError(
            f"config.stages: evaluate judges with what {', '.join(POLICIES)} trained in this run; put one of them before it, "
            "or judge with a finished model by python -m spct_jax.judge"
        )
    if config.evaluation.split not in ("train", "development", "test"):
        raise InputError(f"config.evaluation.split: {config.evaluation.split!r} is none of train, development, test")
    if config.evaluation.order not in ("balanced", "random"):
        raise InputError(f"config.evaluation.order: {config.evaluation.order!r} is neither 'balanced' nor 'random'")
    for name, least in LEAST.items():
        value = functools.reduce(getattr, name.split("."), config)
        if not value >= least:
            raise InputError(f"config.{name}: {value} is not at least {least}")


def check_mesh(mesh: MeshConfig, prefix: str = "config.mesh.") -> None:
    """Checks a mesh; raises InputError naming the field, with what stands before it on the command line."""
    if mesh.strategy not in STRATEGIES:
        raise InputError(f"{prefix}strategy: {mesh.strategy!r} is none of {', '.join(STRATEGIES)}")
    if mesh.rollout not in ("same", "tensor"):
        raise InputError(f"{prefix}rollout: {mesh.rollout!r} is neither 'same' nor 'tensor'")
    for field, strategies in (("tensor", ("tensor", "fsdp_tensor", "multislice")), ("slices", ("multislice",))):
        value = getattr(mesh, field)
        if value < 1 or value > 1 and mesh.strategy not in strategies:
            raise InputError(f"{prefix}{field}: {value} does not go with strategy={mesh.strategy!r}")
