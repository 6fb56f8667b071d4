"""The jitted functions of an engine, compiled for one shape, and ahead of time if asked to.

B rows of G branches and U trunks are held as `kernel.Slots`; all programs except `init` and those that compute trunks take the
slots and return them changed, in the same memory.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from spct_jax import models
from spct_jax.models import quantized, stack, tiles
from spct_jax.models.config import ModelConfig
from spct_jax.runtime import compiling, memory
from spct_jax.sampling.engine_params import decode_model, formats, stored_model
from spct_jax.sampling.engine_shape import Level, Shape
from spct_jax.sampling.kernel import Slots, draw_chunk
from spct_jax.sampling.params import SamplingParams
from spct_jax.sharding import Layout


class EngineProgram:
    """A jitted function of an engine, and the shapes it is called with; it can be compiled before it is called."""

    def __init__(self, jitted: Callable, *arguments: Any):
        """`arguments` are the abstract values, shapes and dtypes, that it is called with."""
        self._jitted, self._arguments = jitted, arguments
        self._begun, self._ahead = False, None

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function; if another thread is compiling it, waits for that first."""
        self._begun, ahead = True, self._ahead
        if ahead is None or ahead.cancelled():
            return self._jitted(*arguments)
        if not ahead.done():
            start = time.perf_counter()
            futures.wait([ahead])
            jax.monitoring.record_event_duration_secs(compiling.WAITED, time.perf_counter() - start)
        return ahead.result()(*arguments)

    def lower(self) -> jax.stages.Lowered:
        """Lowers the function for its abstract arguments."""
        return self._jitted.lower(*self._arguments)

    def compile_ahead(self, pool: futures.Executor) -> bool:
        """Starts compiling it in `pool`; returns False if that was started before or the function has been called."""
        if self._begun:
            return False
        self._begun, self._ahead = True, pool.submit(self._compile)
        return True

    def _compile(self) -> jax.stages.Compiled:
        compiled = self.lower().compile()
        memory.give_back()  # what only the compiler needed
        return compiled


@dataclasses.dataclass(frozen=True)
class EnginePrograms:
    """The programs that an engine calls; `params` are those that `engine_params.decode_params` returns."""

    init: EngineProgram
    """() -> Slots in which nothing runs."""
    trunks: Callable[[Level], EngineProgram]
    """(params, tokens [B P], lengths [B], the trunks of the level before, if there is one) -> Trunk."""
    chunk: EngineProgram
    """(params, slots, sampling) -> (slots, Completions of C tokens, which branches ended in them Bool[B G])."""
    insert: EngineProgram
    """(slots, trunks, rows, trunk_slots, sources) -> slots; `insert_trunks` in each shard of the rows by itself, whose rows and
    sources are numbered from 0."""
    begin: EngineProgram
    """(slots, fresh, trunk_slot, keys, sample, last) -> slots; see `begin_branches`."""

    def compile_ahead(self, pool: futures.Executor, levels: Iterable[Level]) -> bool:
        """Starts compiling, in `pool`, what an engine calls for trunks of these levels; returns whether any of it was left.

        An engine that needs a program before it is compiled waits for it.
        """
        programs = [self.trunks(level) for level in levels]
        return any([program.compile_ahead(pool) for program in (*programs, self.chunk, self.insert, self.begin)])


def engine_programs(layout: Layout, config: ModelConfig, shape: Shape, sampling: SamplingParams) -> EnginePrograms:
    """The programs of engines of this shape, once it is `aligned`; engines that differ only in the temperature share them."""
    shape, sampling = shape.aligned(layout.platform), dataclasses.replace(sampling, temperature=np.float32(0))
    return _engine_programs(layout, config, shape, sampling)


@functools.cache
def _engine_programs(layout: Layout, config: ModelConfig, shape: Shape, sampling: SamplingParams) -> EnginePrograms:
    params, config = decode_model(layout, config)
    trunks = abstract_trunks(layout, config, shape.prefill_rows, shape.max_prompt - 1)
    slots = abstract_slots(layout, config, shape)
    in_slots, row = layout.batch(slots), jax.ShapeDtypeStruct((shape.prefill_rows,), jnp.int32)

    def init():
        with layout.constraints():
            return empty_slots(config, shape)

    def chunk(params, slots, sampling):
        with layout.constraints():
            after, drawn = draw_chunk(params, config, slots, sampling, shape.max_new_tokens)
            return after, drawn, after.done & ~slots.done

    def insert(slots, *arguments):
        specs = jax.tree.map(lambda where: where.spec, (in_slots.trunks, layout.batch(trunks), *layout.batch((row,) * 3)))
        in_shard = jax.shard_map(insert_trunks, mesh=layout.mesh, in_specs=specs, out_specs=specs[0], check_vma=False)
        return slots.replace(trunks=in_shard(slots.trunks, *arguments))

    def begin(*arguments):
        with layout.constraints():
            return begin_branches(*arguments)

    init = jax.jit(init, out_shardings=in_slots)
    chunk = jax.jit(
        chunk,
        donate_argnums=1,
        in_shardings=(formats(layout, params), in_slots, layout.replicated),
        out_shardings=(in_slots, layout.sharding("batch"), layout.sharding("batch")),
    )
    insert = jax.jit(
        insert,
        donate_argnums=0,
        in_shardings=(in_slots, layout.batch(trunks), *layout.batch((row,) * 3)),
        out_shardings=in_slots,
    )
    branches = (slots.done, slots.trunk_slot, jax.eval_shape(jax.random.key_data, slots.keys), slots.trunk_slot, slots.last)
    begin = jax.jit(begin, donate_argnums=0, in_shardings=(in_slots, *layout.batch(branches)), out_shardings=in_slots)

    return EnginePrograms(
        init=EngineProgram(init),
        trunks=functools.partial(trunk_program, layout, config),
        chunk=EngineProgram(chunk, params, slots, sampling),
        insert=EngineProgram(insert, slots, trunks, row, row, row),
        begin=EngineProgram(begin, slots, *branches),
    )


@functools.cache
def trunk_program(layout: Layout, config: ModelConfig, level: Level) -> EngineProgram:
    """The program that computes the trunks of a level; all shapes that have such a level share it.

    The parameters it takes are those of this architecture, as they are stored.
    """

    def of(level: Level) -> models.Trunk:
        return abstract_trunks(layout, config, level.rows, level.trunk_slots)

    params, trunks, before = stored_model(config), of(level), (of(level.before),) if level.before else ()
    shape = level.rows, level.slots
    prompts = jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct(shape[:1], jnp.int32), *before

    def prefill(params, tokens, lengths, *prefix):
        with layout.constraints():
            return models.prefill(params, config, tokens, lengths, *(prefix or (None,)), slots=level.trunk_slots)

    given = (formats(layout, params), *layout.batch(prompts))
    prefill = jax.jit(prefill, in_shardings=given, out_shardings=layout.batch(trunks))
    return EngineProgram(prefill, params, *prompts)


def abstract_slots(layout: Layout, config: ModelConfig, shape: Shape) -> Slots:
    """Shapes and dtypes of `empty_slots` on the devices of a layout."""
    with layout.constraints():
        return jax.eval_shape(functools.partial(empty_slots, config, shape))


def abstract_trunks(layout: Layout, config: ModelConfig, rows: int, slots: int) -> models.Trunk:
    """Shapes and dtypes of trunks of `slots` slots as `models.prefill` gives them, without tracing that."""
    with layout.constraints():
        return jax.eval_shape(functools.partial(_empty_trunks, dataclasses.replace(config, quantize="none"), rows, slots))


def _empty_trunks(config: ModelConfig, rows: int, slots: int) -> models.Trunk:
    slots = tiles.here().aligned(slots)

    def keys_and_values(entry: stack.LayerStack):
        S = slots if entry.kind == "global" else min(slots, config.window)
        shape = *entry.leading, rows, config.num_kv_heads, S, config.head_dim
        empty = quantized.zeros(shape, -1, config.dtype, config.quantize)
        return empty, jax.tree.map(jnp.copy, empty)

    return models.Trunk(layers=stack.build(config, keys_and_values), lengths=jnp.zeros(rows, jnp.int32))


def empty_slots(config: ModelConfig, shape: Shape) -> Slots:
    """Slots in which nothing runs."""
    B, G = shape.rows, shape.branches
    return Slots(
        trunks=tuple(_empty_trunks(config, B, shape.max_prompt - 1) for _ in range(shape.trunks)),
        cache=models.init_cache(config, B, G, shape.max_new_tokens, shape.chunk),
        trunk_slot=jnp.zeros((B, G), jnp.int32),
        keys=jax.random.wrap_key_data(jnp.zeros((B, G, *jax.random.key_data(jax.random.key(0)).shape), jnp.uint32)),
        last=jnp.zeros((B, G), jnp.int32),
        lengths=jnp.zeros((B, G), jnp.int32),
        done=jnp.ones((B, G), bool),
    )


def insert_trunks(
    held: tuple[models.Trunk, ...],
    trunks: models.Trunk,
    rows: Int[Array, " M"],
    trunk_slots: Int[Array, " M"],
    sources: Int[Array, " M"],
) -> tuple[models.Trunk, ...]:
    """The trunks of all rows, with sources[i] in slot trunk_slots[i] of row rows[i]; a row that does not exist is skipped.

    Where those held are quantised, new ones are, too.
    """

    def into(u: int, held: models.Trunk) -> models.Trunk:
        at = jnp.where(trunk_slots == u, rows, len(held.lengths))

        def one(held, new):
            lead = held.ndim - 4  # [.. B K S H]: scanned layers have an axis R before the others
            new = quantized.like(jnp.take(new, sources, axis=lead, mode="clip"), held, -1)
            return jax.tree.map(lambda held, new: held.at[(*(slice(None),) * lead, at)].set(new, mode="drop"), held, new)

        lengths = held.lengths.at[at].set(jnp.take(trunks.lengths, sources, mode="clip"), mode="drop")
        layers = jax.tree.map(one, held.layers, trunks.layers, is_leaf=quantized.is_quantized)
        return models.Trunk(layers=layers, lengths=lengths)

    return tuple(into(u, trunk) for u, trunk in enumerate(held))


def begin_branches(
    slots: Slots,
    fresh: Bool[Array, "B G"],
    trunk_slot: Int[Array, "B G"],
    keys: UInt32[Array, "B G words"],
    sample: Int[Array, "B G"],
    last: Int[Array, "B G"],
) -> Slots:
    """Begins a branch where `fresh` is True: this sample of the prompt with this key data and last token, on this trunk."""
    drawn = jax.vmap(jax.vmap(jax.random.fold_in))(jax.random.wrap_key_data(keys), sample)
    return slots.replace(
        trunk_slot=jnp.where(fresh, trunk_slot, slots.trunk_slot),
        keys=jnp.where(fresh, drawn, slots.keys),
        last=jnp.where(fresh, last, slots.last),
        lengths=jnp.where(fresh, 0, slots.lengths),
        done=slots.done & ~fresh,
    )
