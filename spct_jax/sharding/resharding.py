"""Parameters in another dtype and another layout."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from spct_jax.sharding import logical
from spct_jax.sharding.layout import Layout


def make_cast(params: Any, layout: Layout) -> Callable[[Any, jnp.dtype], Any]:
    """A jitted `logical.cast(params, dtype)` for parameters of these shapes, which moves them from any layout to `layout`."""
    return jax.jit(logical.cast, static_argnums=1, out_shardings=layout.params(params))


def cast_params(params: Any, dtype: Any, layout: Layout) -> Any:
    """Parameters with the large ones in `dtype`, in `layout`; the same arrays if nothing would change."""
    dtype = jnp.dtype(dtype)

    def is_there(path, x, sharding):
        cast = logical.dtype_of(path, x, dtype)
        return isinstance(x, jax.Array) and x.dtype == cast and x.sharding.is_equivalent_to(sharding, x.ndim)

    if jax.tree.all(jax.tree_util.tree_map_with_path(is_there, params, layout.params(params))):
        return params
    return make_cast(params, layout)(params, dtype)
