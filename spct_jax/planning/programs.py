"""The programs of an experiment, ready to be compiled for devices that are not there."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from spct_jax import checkpoints, sharding
from spct_jax.checkpoints import train_state
from spct_jax.config import Config
from spct_jax.data.batches import Groups
from spct_jax.grm.template import load_template
from spct_jax.models import flops
from spct_jax.runtime import memory
from spct_jax.sampling import SamplingParams, engine_shape
from spct_jax.sampling.engine_params import conversion, decode_model
from spct_jax.sampling.engine_programs import engine_programs
from spct_jax.sampling.engine_shape import Level
from spct_jax.sampling.engine_size import Sizes
from spct_jax.sharding import logical
from spct_jax.training import bucket_choice, context, grpo, meta, mixture, optimizers, parameters, sft
from spct_jax.training.micro_batches import Batch, Part
from spct_jax.training.preambles import Preamble


@dataclasses.dataclass(frozen=True)
class Planned:
    """One program of an experiment, or those of one update."""

    lower: Callable[[], Iterable[Part]]
    """Yields the programs that it consists of: an update has one for its micro-batches and one that applies their sum."""
    flops: float
    """Floating-point operations by formula, on all devices together."""
    tokens: int
    """Tokens that one execution reads, draws or learns from; for a decoding program, those of one step."""
    beside: int = 0
    """Bytes per device of what else is held while it runs, besides what its parts say."""
    kernels: float = 0.0
    """Operations of Pallas kernels, by formula, on all devices together: the compiled text does not show them."""
    steps: int = 1
    """How many tokens of every branch one execution draws; figures are per token."""
    note: str = ""
    """What its figures are of, where its name does not say."""


def _struct(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def abstract_groups(rows: int, group: int, trunk: int, time: int, preamble: Preamble = ()) -> Groups:
    """Abstract groups: B = `rows` prompts with G = `group` completions each, trunks of `trunk` tokens, T = `time`."""
    integers = [(rows, trunk), (rows,), (rows, group, time + 1), (rows, group), *[(rows,)] * bool(preamble)]
    return Groups(*(_struct(shape, jnp.int32) for shape in integers))


CHARACTERS_PER_TOKEN = 3.8
"""Of a template's preamble, for a plan, which need not have the tokenizer: Gemma's makes so many of the default one's."""


def _stand_in(template: str) -> Preamble:
    """As many tokens as the preamble of a template has, or nearly; () where it is too short to be computed once."""
    text = load_template(template).prompt.partition("{")[0] if template else ""
    count = round(len(text) / CHARACTERS_PER_TOKEN)
    return (0,) * count if count >= engine_shape.LEAST_SHARED else ()


def _alone(lower: Callable[..., jax.stages.Lowered], *arguments: Any) -> Callable[[], Iterable[Part]]:
    """What lowers a single program."""
    return lambda: [Part(lower(*arguments), 1, 0)]


class _Setting:
    """What the programs of an experiment share: layouts, shapes of the parameters, and bytes of what else a device holds."""

    def __init__(self, config: Config, devices: list):
        self.config = config
        self.layout, self.rollout = context.make_layouts(config, devices)
        params = checkpoints.abstract_params(config.model)
        self.params = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, self.layout.params(params)
        )
        self.reference = jax.eval_shape(functools.partial(logical.cast, dtype=config.rl.ref_dtype), self.params)
        self.trunk, self.time = config.data.max_prompt - 1, config.data.max_completion
        self.table = bucket_choice.named(config.data)
        # Without buckets all updates are planned at the limits, with complete prompts.
        named = (config.prompt.template, config.prompt.meta_template) if self.table else ("", "")
        self.preamble, self.meta_preamble = map(_stand_in, named)
        learner = self.state("rl")
        self.state_bytes = sharding.bytes_per_device(learner, self.layout.state(learner))
        self.params_bytes = sharding.bytes_per_device(self.params, self.layout.params(self.params))
        self.reference_bytes = sharding.bytes_per_device(self.reference, self.layout.params(self.reference))

    def optimizer(self, stage: str) -> optax.GradientTransformation:
        """The optimiser of a stage."""
        chosen = getattr(self.config, stage)
        return optimizers.make(chosen.optimizer, chosen.steps)

    def state(self, stage: str) -> train_state.TrainState:
        """The abstract training state of a stage."""
        params = checkpoints.abstract_params(self.config.model, parameters.kind_of(stage))
        return train_state.abstract_state(self.layout, params, self.optimizer(stage))

    def groups(self, rows: int, group: int, preamble: Preamble) -> Groups:
        """Abstract groups with prompts and completions of the experiment's lengths."""
        return abstract_groups(rows, group, self.trunk, self.time, preamble)

    def batch(self, rows: Any, count: int) -> Batch:
        """A batch in so many micro-batches, all at the experiment's lengths; the buckets that it names are not left out."""
        return Batch(rows, [(self.trunk + 1, self.time)] * count, self.table)


def programs(config: Config, devices: list) -> dict[str, Planned]:
    """The programs of an experiment by name, in the order in which a step of RL runs them, and those of the other stages.

    Raises:
      InputError: the devices cannot be arranged as the experiment says, or its batches cannot be split evenly over them.
    """
    setting = _Setting(config, devices)
    with setting.layout.constraints():  # what is counted by hand depends on the platform
        return _drawing(setting) | _learning(setting)


def _drawing(setting: _Setting) -> dict[str, Planned]:
    """What draws the completions of RL: moving parameters to the rollout layout, and the engine's large programs."""
    config, rollout, trunk, time = setting.config, setting.rollout, setting.trunk, setting.time
    model, rl = config.model, config.rl
    beside = setting.state_bytes + setting.reference_bytes
    unrolled = decode_model(rollout, model)[1]
    preamble = len(_stand_in(config.prompt.template))
    sizes = Sizes(rollout, unrolled, memory.limit(rollout.mesh.devices.flat[0]), beside, preamble=preamble)
    shape = sizes.of_slots(rl.slots, config.data.max_prompt, time, rl.group_size, rl.batch_size).aligned(rollout.platform)
    slots = shape.rows * shape.branches
    engine = engine_programs(rollout, model, shape, SamplingParams(rl.temperature, stop_ids=(1, 107)))

    reshard = _alone(conversion(rollout, model).lower, setting.params)
    decoded = flops.decode(model, slots, trunk, time + shape.chunk, shape.trunks)

    def prefill(level: Level, copies: int, tokens: int) -> Planned:
        note = f"behind a preamble of {level.before.slots}" if level.before else ""
        prefix = level.before.slots if level.before else 0
        arithmetic = (count(unrolled, level.rows, level.slots, prefix) for count in (flops.prefill, flops.kernels))
        found, kernels = (copies * operations for operations in arithmetic)
        return Planned(_alone(engine.trunks(level).lower), found, tokens, beside, kernels, note=note)

    # Every device that has rows computes the preamble. A prompt counts with all of its tokens.
    *first, rest = shape.levels(shape.split(config.data.max_prompt, shape.preamble))
    return {
        "reshard": Planned(reshard, 0, 0, beside - setting.params_bytes),
        **dict(zip(["preamble"], (prefill(level, rollout.batch_shards, level.slots) for level in first), strict=False)),
        "prefill": prefill(rest, 1, rest.rows * trunk),
        "decode": Planned(_alone(engine.chunk.lower), decoded, slots, beside, steps=shape.chunk, note="a token"),
    }


IN_PAIRS = 0.6
"""Share of the retained draws that plans take to be in pairs, two of one prompt. It is 61 % for a policy that is right in 70 %
of its draws, and always when told the answer; with a share of 0, an update of `paper()` has 2 % more tokens."""


def _rft(setting: _Setting) -> Planned:
    """The update of RFT."""
    config, chosen, trunk, time = setting.config, setting.config.rft, setting.trunk, setting.time
    rows = mixture.rows_of(chosen.batch_size, chosen.general_fraction, IN_PAIRS)
    shapes = mixture.shapes(rows, chosen.batch_size, chosen.accumulate, setting.layout.batch_shards)

    def lower():
        state = setting.state("rft")
        step = sft.make_step(setting.layout, state, config.model, setting.optimizer("rft"), setting.preamble)
        groups = [(setting.groups(rows, size, setting.preamble), count) for size, (rows, count) in shapes.items()]
        return step.lower(state, [*itertools.starmap(setting.batch, groups)])

    return Planned(
        lower,
        sum(flops.update(config.model, rows, size, trunk, time) for size, (rows, _) in shapes.items()),
        sum(rows * size * time for size, (rows, _) in shapes.items()),
        kernels=sum(
            flops.kernels(config.model, rows, trunk, group=size, time=time, gradients=True)
            for size, (rows, _) in shapes.items()
        ),
    )


def _learning(setting: _Setting) -> dict[str, Planned]:
    """What scores completions and what learns from them."""
    config, layout, trunk, time = setting.config, setting.layout, setting.trunk, setting.time
    model, G = config.model, config.rl.group_size
    number = functools.partial(_struct, dtype=jnp.float32)

    def planned(make_step, stage: str, group: int, rows_of, *given, preamble, length=time, logits=True, beside=0):
        chosen = getattr(config, stage)
        rows = chosen.batch_size

        def lower():
            state = setting.state(stage)
            step = make_step(layout, state, model, setting.optimizer(stage), preamble)
            made = rows_of(setting.groups(rows, group, preamble))
            return step.lower(state, [setting.batch(made, chosen.accumulate)], *given)

        arithmetic = flops.update(model, rows, group, trunk, length, logits=logits)
        kernels = flops.kernels(model, rows, trunk, group=group, time=length, gradients=True)
        return Planned(lower, arithmetic, rows * group * time, beside, kernels)

    def of_rollouts(groups: Groups):
        tokens = number((*groups.lengths.shape, time))
        return grpo.GRPOBatch(groups, number(groups.lengths.shape), None, tokens, tokens)

    def of_critiques(groups: Groups):
        return groups, number(groups.lengths.shape)

    def lower_reference():
        batch = setting.batch(setting.groups(config.rl.batch_size, G, setting.preamble), config.rl.accumulate)
        score = grpo.make_reference(layout, setting.reference, model, setting.preamble)
        return score.lower(setting.reference, batch, number(()))

    hyperparameters = grpo.GRPOHyperparameters(*(number(()),) * 3)
    of_policy = {"preamble": setting.preamble, "beside": setting.reference_bytes}
    of_meta = {"preamble": setting.meta_preamble, "length": time + 1, "logits": False}
    scored, drawn = config.rl.batch_size, config.rejection.samples
    drawn = drawn if config.meta_rm.policy_data == "draws" else max(drawn, G)
    return {
        "reference": Planned(
            lower_reference,
            flops.forward(model, scored, G, trunk, time),
            scored * G * time,
            setting.state_bytes,
            flops.kernels(model, scored, trunk, group=G, time=time),
        ),
        "grpo": planned(grpo.make_step, "rl", G, of_rollouts, hyperparameters, **of_policy),
        "sft": _rft(setting),
        # The score is read after the last token.
        "meta_rm": planned(meta.make_step, "meta_rm", drawn, of_critiques, **of_meta),
    }
