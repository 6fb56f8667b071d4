"""Parameters as engines read them: as rollouts split them, unrolled or quantised, with their axes in the fastest order."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Format
from jax.experimental.layout import Layout as AxisOrder

from spct_jax import models, sharding
from spct_jax.models import quantized, stack, tiles
from spct_jax.models.config import ModelConfig
from spct_jax.sharding import Layout, logical


def decode_params(params: Any, config: ModelConfig, layout: Layout) -> Any:
    """Parameters as the programs read them: in `layout`, unrolled where that is faster, large ones in the model's dtype, or
    quantised where `ModelConfig.quantize` says so.

    They belong to the architecture that `decode_model` returns. Those that are so already are returned as they are: who holds
    them in this form saves engines a copy of their own.
    """
    form, _ = decode_model(layout, config)
    if jax.tree.structure(params) != jax.tree.structure(form):
        return conversion(layout, config)(params)
    params = sharding.cast_params(params, config.dtype, layout)
    # Scales, too, get the dtype that the programs were compiled for, even if a checkpoint stores them in half precision.
    return reformat(jax.tree.map(lambda x, like: x.astype(like.dtype), params, form), layout)


def formats(layout: Layout, params: Any) -> Any:
    """Where the programs read parameters, abstract or concrete, and in which order of axes if the platform wants another."""
    shardings = layout.params(params)
    if not tiles.of(layout.platform).width_last:
        return shardings

    def one(path, where, x):
        if logical.param_name(path) not in ("q", "k", "v"):
            return where
        *leading, width, heads, dim = range(x.ndim)
        return Format(AxisOrder((*leading, heads, dim, width)), where)

    return jax.tree_util.tree_map_with_path(one, shardings, params)


def reformat(params: Any, layout: Layout, *, delete: bool = False) -> Any:
    """Parameters in `layout` as `formats` says; those that are so already are the same arrays.

    Args:
      params: in this layout.
      layout: of the programs.
      delete: whether an array is deleted as soon as there is another of it.
    """

    def one(x, where):
        if not isinstance(where, Format) or x.format.layout.major_to_minor == where.layout.major_to_minor:
            return x
        made = _laid_out(where)(x)
        if delete:
            x.delete()
        return made

    return jax.tree.map(one, params, formats(layout, params))


@functools.cache
def _laid_out(where: Format) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(jnp.copy, out_shardings=where)


def adopt(params: Any, config: ModelConfig, layout: Layout) -> tuple[Any, ModelConfig]:
    """`decode_params` of parameters that are not needed otherwise, and their architecture.

    Arrays are deleted one by one as soon as their layers are taken out of them, or they are quantised, so there is never a
    second copy of all.
    """
    form, drawn = decode_model(layout, config)
    if drawn.pattern != config.pattern:
        params, _ = models.unroll(params, config, _take_apart)
    if jax.tree.structure(params) != jax.tree.structure(form):
        params = jax.tree_util.tree_map_with_path(functools.partial(_quantize, layout), params)
    return decode_params(reformat(params, layout, delete=True), drawn, layout), drawn


def _take_apart(stacked: jax.Array) -> list[jax.Array]:
    rows = _rows(stacked.sharding)(stacked)
    stacked.delete()
    return rows


def _quantize(layout: Layout, path: tuple, x: jax.Array) -> Any:
    if not logical.is_large(path, x.ndim):
        return x
    name = logical.param_name(path)
    made = _quantizer(layout, name, x.shape)({name: x})[name]
    x.delete()
    return made


@functools.cache
def _quantizer(layout: Layout, name: str, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    made = jax.eval_shape(quantized.quantize_params, {name: jax.ShapeDtypeStruct(shape, jnp.float32)})
    return jax.jit(quantized.quantize_params, out_shardings=layout.params(made))


@functools.cache
def _rows(sharding: jax.sharding.Sharding) -> Callable[[jax.Array], list[jax.Array]]:
    return jax.jit(stack.rows, out_shardings=sharding)


@functools.cache
def conversion(layout: Layout, config: ModelConfig) -> Callable[[Any], Any]:
    """Jitted: parameters in any layout and dtype, their layers stacked by the pattern -> those that the programs read."""
    form, drawn = decode_model(layout, config)

    def convert(params):
        if drawn.pattern != config.pattern:
            params = models.unroll(params, config)[0]
        if config.quantize != "none":
            params = quantized.quantize_params(params)
        return jax.tree.map(lambda x, like: x.astype(like.dtype), params, form)

    return jax.jit(convert, out_shardings=formats(layout, form))


@functools.cache
def stored_model(config: ModelConfig) -> Any:
    """Abstract parameters, their layers stacked by the pattern, the large ones in the model's dtype or quantised."""
    params = jax.eval_shape(lambda key: logical.cast(models.init(config, key), config.dtype), jax.random.key(0))
    return params if config.quantize == "none" else jax.eval_shape(quantized.quantize_params, params)


@functools.cache
def decode_model(layout: Layout, config: ModelConfig) -> tuple[Any, ModelConfig]:
    """Abstract parameters, as `decode_params` returns them, and the architecture they belong to."""
    params = stored_model(config)
    if config.num_layers > tiles.of(layout.platform).unrolled_layers:
        return params, config
    unrolled = dataclasses.replace(config, pattern=config.layer_kinds)
    return jax.eval_shape(lambda params: models.unroll(params, config)[0], params), unrolled
