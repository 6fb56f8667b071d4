"""What a model takes of a device's memory: its parameters, trunks and caches, and what its programs need beside them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from spct_jax import sharding
from spct_jax.models.config import ModelConfig
from spct_jax.sampling import engine_params, engine_programs
from spct_jax.sampling.engine_shape import Shape
from spct_jax.sharding import Layout

LOGITS_HELD = 4
"""Float32 arrays as large as the logits while a token is drawn: logits, scaled, their exponentials, these in blocks."""


@dataclasses.dataclass(frozen=True)
class ModelBytes:
    """Bytes of a device, for one architecture. Arrays are counted as they are held, what programs make by formulas."""

    layout: Layout
    config: ModelConfig

    @functools.cached_property
    def parameters(self) -> int:
        """Of the parameters; twice, if engines have a copy of their own (`engine_params.decode_params`)."""
        forms = (engine_params.stored_model(self.config), engine_params.decode_model(self.layout, self.config)[0])
        different = {jax.tree.structure(form): form for form in forms}
        return sum(sharding.bytes_per_device(form, self.layout.params(form)) for form in different.values())

    @functools.cached_property
    def gathered(self) -> int:
        """Of parameters that are whole while they are used, where they are split along their width."""
        c = self.config
        if self._split("embed", c.width) == c.width:
            return 0
        layer = self._heads + c.head_dim * self._split("heads", c.num_heads) + 3 * self._split("ffw", c.ffw_width)
        return c.width * (2 * layer + self._split("vocab", c.vocab_size)) * jnp.dtype(c.dtype).itemsize

    def activations(self, tokens: int) -> int:
        """Of a layer: the residual stream twice, and what products with weights give, in float32."""
        return tokens * 4 * (2 * self.config.width + 2 * self._split("ffw", self.config.ffw_width) + self._heads)

    @property
    def projections(self) -> int:
        """Of the weights that give queries, keys and values, in all layers."""
        return self.config.num_layers * self.config.width * self._heads * jnp.dtype(self.config.dtype).itemsize

    def logits(self, tokens: int) -> int:
        """Of logits and what is made of them while `tokens` tokens are drawn."""
        return tokens * LOGITS_HELD * 4 * self._split("vocab", self.config.vocab_size)

    def row(self, shape: Shape) -> tuple[int, int]:
        """Of one row of a shape: (of all that its slots hold, of a trunk as it is computed)."""
        one_each = dataclasses.replace(shape, rows=self.layout.batch_shards, prefill_rows=1, siblings=1)
        return _bytes_of_row(self.layout, self.config, one_each)

    @property
    def _heads(self) -> int:
        """Width of queries, keys and values together, as a device holds them."""
        c = self.config
        return c.head_dim * (self._split("heads", c.num_heads) + 2 * self._split("kv_heads", c.num_kv_heads))

    def _split(self, axis: str, size: int) -> int:
        """How much of a logical axis of this size a device holds."""
        return self.layout.resolve((size,), (axis,)).shard_shape((size,))[0]


@functools.cache
def _bytes_of_row(layout: Layout, config: ModelConfig, shape: Shape) -> tuple[int, int]:
    """`ModelBytes.row`, for a shape of one row on each device."""
    drawn = engine_params.decode_model(layout, config)[1]
    held = engine_programs.abstract_slots(layout, drawn, shape)
    trunks = engine_programs.abstract_trunks(layout, drawn, shape.rows, shape.max_prompt - 1)
    return tuple(sharding.bytes_per_device(arrays, layout.batch(arrays)) for arrays in (held, trunks))
