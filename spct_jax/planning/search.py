"""Which mesh and which micro-batches: what would make a program fit, and a ranking by an analytic model."""

import copy
import dataclasses
from collections.abc import Iterator

from spct_jax.config import Config
from spct_jax.models import flops
from spct_jax.runtime.hardware import Chip
from spct_jax.sharding import TABLES

STAGE_OF = {"reference": "rl", "grpo": "rl", "sft": "rft", "meta_rm": "meta_rm"}


def remedies(config: Config, program: str, devices: int) -> Iterator[tuple[str, Config]]:
    """(what was changed, the configuration) of changes that may make a program fit, each in addition to those before it.

    Smaller micro-batches come first, since they cost the least speed, then fewer logits at once, less kept of the forward pass,
    a smaller dtype of the reference, an optimiser with less memory, and last another mesh; for programs that draw completions,
    fewer slots and then another mesh.
    """
    changed, config = [], copy.deepcopy(config)

    def change(path: str, value):
        owner = config
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, name, value)
        text = f"--config.{path}={value}"
        changed[:] = [c for c in changed if not c.startswith(f"--config.{path}=")] + [text]
        return " ".join(changed), copy.deepcopy(config)

    if program in STAGE_OF:
        stage = STAGE_OF[program]
        chosen = getattr(config, stage)
        shards = devices if "tensor" in TABLES[config.mesh.strategy]["batch"] else devices // config.mesh.tensor
        while chosen.batch_size % (2 * chosen.accumulate * shards) == 0:
            yield change(f"{stage}.accumulate", 2 * chosen.accumulate)
        if config.model.time_chunk > 32:
            yield change("model.time_chunk", 32)
        if program != "reference" and config.model.remat != "full":
            yield change("model.remat", "full")
        if stage == "rl" and config.rl.ref_dtype != "bfloat16":
            yield change("rl.ref_dtype", "bfloat16")
        if chosen.optimizer.name == "adam":
            yield change(f"{stage}.optimizer.name", "adafactor")
    elif program != "reshard":
        slots = config.rl.slots or config.rl.batch_size * config.rl.group_size
        while slots // 2 >= devices // config.mesh.tensor:
            slots //= 2
            yield change("rl.slots", slots)
    if config.mesh.strategy in ("fsdp", "fsdp_tensor"):
        if config.mesh.strategy == "fsdp":
            in_updates = change("mesh.strategy", "fsdp_tensor")
            if config.mesh.tensor > 1:
                yield in_updates
        while devices % (2 * config.mesh.tensor) == 0 and config.model.num_kv_heads % (2 * config.mesh.tensor) == 0:
            yield change("mesh.tensor", 2 * config.mesh.tensor)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A mesh and micro-batches for the GRPO update, with what the analytic model below expects of them."""

    tensor: int
    """Devices that share the heads of a layer in updates."""
    accumulate: int
    memory: float
    """Bytes per device."""
    seconds: float
    """Seconds per update."""


def candidates(config: Config, chip: Chip, devices: int) -> list[Candidate]:
    """All candidates that fit by the analytic model, fastest first.

    Time is that of arithmetic plus that of links: every micro-batch gathers the parameters of a layer twice in the model's
    dtype and scatters their gradient in float32, once for the trunk and once for the branches, and `tensor` devices sum four
    activations per layer and pass. Memory is parameters, Adam's moments and gradients in float32, the reference, one
    activation per layer and token, and the scores and logits of one chunk; every slice holds a complete copy.
    """
    model, rl, data = config.model, config.rl, config.data
    layer = model.width * (2 * model.head_dim * (model.num_heads + model.num_kv_heads) + 3 * model.ffw_width)
    params = model.num_layers * layer + model.vocab_size * model.width
    tokens = data.max_prompt + rl.group_size * data.max_completion
    arithmetic = flops.update(model, rl.batch_size, rl.group_size, data.max_prompt - 1, data.max_completion)
    found = []
    for tensor in (1, 2, 4, 8, 16):
        shards = devices // tensor
        if devices // config.mesh.slices % tensor or model.num_kv_heads % tensor:
            continue
        for accumulate in range(1, rl.batch_size // shards + 1):
            if rl.batch_size % (accumulate * shards):
                continue
            rows = rl.batch_size // (accumulate * shards)
            reference = {"float32": 4, "bfloat16": 2}[rl.ref_dtype]
            memory = (
                params * (16 + reference) * config.mesh.slices / devices + 4.0 * rows * tokens * model.width * model.num_layers
            )
            memory += 12.0 * rows * tokens * model.ffw_width / tensor + 4.0 * model.vocab_size * model.width / tensor
            memory += 12.0 * rows * rl.group_size * model.time_chunk * model.vocab_size / tensor
            within = shards // config.mesh.slices
            gathered = accumulate * params / tensor * (2 * 2 + 2 * 4) * (within - 1) / within
            summed = accumulate * rows * tokens * model.width * 4 * model.num_layers * 8 * (tensor - 1) / tensor
            seconds = arithmetic / devices / chip.flops + (gathered + summed) / chip.ici_bandwidth
            if memory <= chip.hbm:
                found.append(Candidate(tensor, accumulate, memory, seconds))
    return sorted(found, key=lambda c: c.seconds)


def with_candidate(config: Config, candidate: Candidate) -> Config:
    """The experiment with the candidate's mesh and micro-batches; heads stay shared in rollouts where they are on one slice."""
    config = copy.deepcopy(config)
    if config.mesh.slices == 1:
        config.mesh.strategy = "fsdp_tensor" if candidate.tensor > 1 else "fsdp"
    if config.mesh.strategy != "fsdp" or config.mesh.rollout != "tensor":
        config.mesh.tensor = candidate.tensor
    config.rl.accumulate = candidate.accumulate
    return config
