"""The programs of an experiment, ready to be compiled for devices that are not there."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from spct_jax import sharding
from spct_jax.config import Config
from spct_jax.data.batches import Groups
from spct_jax.models import checkpoints, count, partition
from spct_jax.sampling import grouped
from spct_jax.sampling.generate import draw
from spct_jax.sampling.programs import Sampler, Shape, lowered, prefill_rows
from spct_jax.sharding import Layout
from spct_jax.training import grpo, loop, meta_rm, sft


@dataclasses.dataclass(frozen=True)
class Planned:
    """One program of an experiment."""

    lower: Callable[[], jax.stages.Lowered]
    flops: float
    """Counted by hand, on all devices together."""
    tokens: int
    """Tokens that one execution reads, draws or learns from; of a decoding program, in one step."""
    beside: int = 0
    """Bytes per device of what else is held while it runs."""
    steps: int = 1
    """Tokens of every branch that one execution draws; figures are per token."""


def _struct(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _groups(rows: int, group: int, trunk: int, time: int) -> Groups:
    integers = [(rows, trunk), (rows,), (rows, group, time + 1), (rows, group)]
    return Groups(*(_struct(shape, jnp.int32) for shape in integers))


def programs(config: Config, devices: list) -> dict[str, Planned]:
    """The programs of an experiment by name, in the order in which a step of RL runs them.

    Raises:
      InputError: the devices cannot be arranged as the experiment says, or do not divide its batches.
    """
    layout = sharding.make_layout(config.mesh, devices)
    sharding.check_batches(config, layout)
    rollout = sharding.rollout_layout(layout, config.mesh)
    model, data, rl = config.model, config.data, config.rl
    trunk, time, G = data.max_prompt - 1, data.max_completion, rl.group_size
    drawn = rl.batch_size // rl.rollout_parts
    params = checkpoints.abstract_params(model, "policy")
    drawn_with = jax.eval_shape(lambda p: partition.cast(p, model.dtype), params)
    reference = jax.tree.map(lambda x: _struct(x.shape, rl.ref_dtype), params)

    def state(kind: str, optimizer):
        return loop.abstract_state(layout, checkpoints.abstract_params(model, kind), optimizer)

    def held(tree, where: Layout):
        return sharding.bytes_per_device(tree, where.params(tree))

    adam = loop.make_optimizer(rl.optimizer, rl.steps)
    learner = state("policy", adam)
    state_bytes = sharding.bytes_per_device(learner, layout.state(learner))
    beside = state_bytes + held(reference, layout)
    keys = _struct((drawn, G), jax.eval_shape(lambda: jax.random.key(0)).dtype)
    prompts = (_struct((drawn, trunk), jnp.int32), *(_struct((drawn,), jnp.int32),) * 2)
    stops = (1, 107)
    shape = Shape(
        max_prompt=data.max_prompt,
        max_new_tokens=time,
        rows=drawn,
        branches=G,
        trunks=1,
        prefill_rows=prefill_rows(data.max_prompt, drawn, rollout.batch_shards),
    )

    decode = count.decode(model, drawn * G, trunk, time + shape.chunk)

    def engine_program(name: str):
        return lambda: lowered(rollout, drawn_with, model, shape, Sampler(rl.temperature, stops))[name]

    def rollout_program():
        return draw.lower(
            drawn_with, *prompts, keys, _struct((drawn, G), bool), _struct((), jnp.float32),
            layout=rollout, config=model, max_new_tokens=time, stop_ids=stops,
        )  # fmt: skip

    def update_program(program, stage: str, kind: str, group: int, extra: Callable[[int], tuple]):
        chosen = getattr(config, stage)
        optimizer = loop.make_optimizer(chosen.optimizer, chosen.steps)
        rows = chosen.batch_size
        return lambda: program.lower(
            state(kind, optimizer), _groups(rows, group, trunk, time), *extra(rows),
            layout=layout, config=model, optimizer=optimizer, accumulate=chosen.accumulate,
        )  # fmt: skip

    def of_rollouts(rows):
        branches = _struct((rows, G, time), jnp.float32)
        settings = {name: _struct((), jnp.float32) for name in ("beta", "clip", "temperature")}
        return _struct((rows, G), jnp.float32), None, branches, branches, settings

    kept = config.rejection.samples + config.rejection.hinted
    sizes = {stage: getattr(config, stage).batch_size for stage in ("rft", "rl", "meta_rm")}
    return {
        "reshard": Planned(
            lambda: grouped.reshard.lower(params, layout=layout, config=model, rollout=rollout), 0, 0, state_bytes
        ),
        "prefill": Planned(
            engine_program("prefill"), count.prefill(model, shape.prefill_rows, trunk), shape.prefill_rows * trunk, beside
        ),
        "decode": Planned(engine_program("decode"), decode, drawn * G, beside, shape.chunk),
        "rollout": Planned(
            rollout_program,
            count.prefill(model, drawn, trunk) + decode,
            drawn * G,
            beside,
        ),
        "reference": Planned(
            lambda: grpo.reference_logprobs.lower(
                reference, _groups(rl.batch_size, G, trunk, time), _struct((), jnp.float32), layout=layout, config=model
            ),
            count.forward(model, sizes["rl"], G, trunk, time),
            sizes["rl"] * G * time,
            state_bytes,
        ),
        "grpo": Planned(
            update_program(grpo.grpo_step, "rl", "policy", G, of_rollouts),
            count.update(model, sizes["rl"], G, trunk, time),
            sizes["rl"] * G * time,
            held(reference, layout),
        ),
        "sft": Planned(
            update_program(sft.sft_step, "rft", "policy", kept, lambda rows: ()),
            count.update(model, sizes["rft"], kept, trunk, time),
            sizes["rft"] * kept * time,
        ),
        "meta_rm": Planned(
            update_program(
                meta_rm.meta_step, "meta_rm", "meta_rm", G, lambda rows: (_struct((rows, G), jnp.float32),)
            ),
            count.update(model, sizes["meta_rm"], G, trunk, time + 1, logits=False),
            sizes["meta_rm"] * G * time,
        ),
    }  # fmt: skip
