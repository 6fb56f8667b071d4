"""The programs of an engine: what it computes on the devices, compiled for one shape each.

B rows of G branches and U trunks are held as `generate.Slots`; every program but the first takes the slots and gives them back
changed.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp

from spct_jax import models
from spct_jax.errors import InputError
from spct_jax.models import decoding, stack
from spct_jax.models.config import ModelConfig
from spct_jax.sampling.generate import CHUNK, UNROLLED_LAYERS, Slots, run_chunk
from spct_jax.sharding import Layout, Program, logical

PREFILL_TOKENS = 4096
"""About how many tokens of prompts an engine reads at once."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What an engine's programs are compiled for."""

    max_prompt: int
    """Tokens of the longest prompt."""
    max_new_tokens: int
    """T, where completions are cut."""
    rows: int
    """B."""
    branches: int = 4
    """G, branches that a row decodes at once."""
    trunks: int = 2
    """U, trunks that a row holds. The next prompt's samples fill the slots that the stragglers of the last one leave; a single
    trunk leaves a third or more of the slots idle, each further one costs its share of trunk attention."""
    prefill_rows: int = 4
    """Prompts that are read at once; a multiple of the devices."""
    chunk: int = CHUNK
    """C, tokens between two looks at which branches have ended; whole chunks fill a block of the cache's past."""

    def __post_init__(self):
        if self.chunk < 1 or decoding.PAST_BLOCK % self.chunk:
            raise InputError(f"chunk is {self.chunk}; it must divide {decoding.PAST_BLOCK}, the columns of a block")


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How tokens are drawn."""

    temperature: float
    stop_ids: tuple[int, ...]
    top_k: int = 0
    top_p: float = 1.0


def prefill_rows(max_prompt: int, rows: int, devices: int) -> int:
    """How many prompts an engine with so many rows reads at once: about `PREFILL_TOKENS`, and a multiple of the devices."""
    return min(devices * max(1, PREFILL_TOKENS // (max_prompt * devices)), rows)


def prepared(params: Any, config: ModelConfig) -> tuple[Any, ModelConfig]:
    """Parameters and architecture as the programs read them: in the model's dtype, short stacks unrolled."""
    params = logical.cast(params, config.dtype)
    return models.unroll(params, config) if config.num_layers <= UNROLLED_LAYERS else (params, config)


def empty_slots(*, config: ModelConfig, shape: Shape) -> Slots:
    """Slots in which nothing runs."""
    B, G = shape.rows, shape.branches
    K, H = config.num_kv_heads, config.head_dim

    def keys_and_values(entry: stack.LayerStack):
        S = shape.max_prompt - 1 if entry.kind == "global" else min(shape.max_prompt - 1, config.window)
        empty = jnp.zeros((*entry.leading, B, K, S, H), config.dtype)
        return empty, empty.copy()

    def trunk():
        layers = stack.build(config, keys_and_values)
        return models.Trunk(layers=layers, lengths=jnp.zeros(B, jnp.int32))

    keys = jax.random.wrap_key_data(jnp.zeros((B, G, *jax.random.key_data(jax.random.key(0)).shape), jnp.uint32))
    return Slots(
        trunks=tuple(trunk() for _ in range(shape.trunks)),
        cache=models.init_cache(config, B, G, shape.max_new_tokens, shape.chunk),
        place=jnp.zeros((B, G), jnp.int32),
        keys=keys,
        last=jnp.zeros((B, G), jnp.int32),
        lengths=jnp.zeros((B, G), jnp.int32),
        done=jnp.ones((B, G), bool),
    )


empty = Program(empty_slots, (), lambda layout, **static: layout.batch(jax.eval_shape(lambda: empty_slots(**static))))


def _prefill_trunks(params: Any, tokens: jax.Array, lengths: jax.Array, *, config: ModelConfig) -> models.Trunk:
    return models.prefill(params, config, tokens, lengths)


def _trunk_shardings(layout: Layout, *args, config: ModelConfig) -> models.Trunk:
    return layout.batch(jax.eval_shape(functools.partial(_prefill_trunks, config=config), *args))


prefill = Program(_prefill_trunks, ("params", "batch", "batch"), _trunk_shardings)


def _draw_chunk(params, slots, temperature, *, config, limit, stop_ids, top_k, top_p):
    return run_chunk(params, config, slots, temperature, limit, stop_ids=stop_ids, top_k=top_k, top_p=top_p)


def _same_slots(layout: Layout, slots: Slots, *_) -> Slots:
    return layout.batch(slots)


chunk = Program(
    _draw_chunk,
    ("params", "batch", "replicated"),
    lambda layout, params, slots, *_, **__: (layout.batch(slots), layout.sharding("batch")),
    donate=(1,),
)


def _insert_trunks(slots: Slots, trunks: models.Trunk, rows: jax.Array, places: jax.Array, sources: jax.Array) -> Slots:
    """Puts trunk sources[i] into place places[i] of row rows[i]; a row that does not exist is passed over."""

    def into(u: int, held: models.Trunk) -> models.Trunk:
        at = jnp.where(places == u, rows, len(held.lengths))

        def one(held, new):
            lead = held.ndim - 4  # [.. B K S H]: scanned layers have an axis R before the others
            new = jnp.take(new, sources, axis=lead, mode="clip")
            return held.at[(*(slice(None),) * lead, at)].set(new, mode="drop")

        lengths = held.lengths.at[at].set(jnp.take(trunks.lengths, sources, mode="clip"), mode="drop")
        return models.Trunk(layers=jax.tree.map(one, held.layers, trunks.layers), lengths=lengths)

    return slots.replace(trunks=tuple(into(u, held) for u, held in enumerate(slots.trunks)))


insert = Program(_insert_trunks, ("batch", "batch", "replicated", "replicated", "replicated"), _same_slots, donate=(0,))


def _begin_branches(slots: Slots, fresh, place, keys, sample, last) -> Slots:
    """Begins a branch wherever `fresh`; every argument is [B G ..]."""
    drawn = jax.vmap(jax.vmap(jax.random.fold_in))(jax.random.wrap_key_data(keys), sample)
    return slots.replace(
        place=jnp.where(fresh, place, slots.place),
        keys=jnp.where(fresh, drawn, slots.keys),
        last=jnp.where(fresh, last, slots.last),
        lengths=jnp.where(fresh, 0, slots.lengths),
        done=slots.done & ~fresh,
    )


begin = Program(_begin_branches, ("batch",) * 6, _same_slots, donate=(0,))


def _calls(params: Any, config: ModelConfig, shape: Shape, sampler: Sampler) -> Iterator[tuple[str, Program, tuple, dict]]:
    """Name, program, arguments (shapes only) and static values of what an engine calls chunk after chunk."""
    made: list[ModelConfig] = []

    def weights(params):
        params, architecture = prepared(params, config)
        made.append(architecture)
        return params

    params = jax.eval_shape(weights, params)
    model = {"config": made[0]}
    slots = jax.eval_shape(functools.partial(empty_slots, **model, shape=shape))
    row = jax.ShapeDtypeStruct((shape.prefill_rows,), jnp.int32)
    tokens = jax.ShapeDtypeStruct((shape.prefill_rows, shape.max_prompt - 1), jnp.int32)
    yield "prefill", prefill, (params, tokens, row), model
    drawing = {"limit": shape.max_new_tokens, "stop_ids": sampler.stop_ids, "top_k": sampler.top_k, "top_p": sampler.top_p}
    yield "decode", chunk, (params, slots, jax.ShapeDtypeStruct((), jnp.float32)), model | drawing
    trunks = jax.eval_shape(functools.partial(_prefill_trunks, **model), params, tokens, row)
    yield "insert", insert, (slots, trunks, row, row, row), {}
    keys = jax.eval_shape(jax.random.key_data, slots.keys)
    yield "begin", begin, (slots, slots.done, slots.place, keys, slots.place, slots.last), {}


def lowered(layout: Layout, params: Any, config: ModelConfig, shape: Shape, sampler: Sampler) -> dict[str, jax.stages.Lowered]:
    """The two large programs, `prefill` and `decode`, lowered for parameters of which shapes are enough."""
    calls = itertools.islice(_calls(params, config, shape, sampler), 2)
    return {name: program.lower(*args, layout=layout, **static) for name, program, args, static in calls}


def compile_ahead(
    pool: futures.Executor, layout: Layout, params: Any, config: ModelConfig, shape: Shape, sampler: Sampler
) -> bool:
    """Has what an engine calls compiled in `pool`, before or while the first one is made; whether there was anything to do.

    The engine waits for a program that is not done when it needs it.
    """
    calls = _calls(params, config, shape, sampler)
    return any([program.compile_ahead(pool, *args, layout=layout, **static) for _, program, args, static in calls])
