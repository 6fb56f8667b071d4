"""Trees of arrays: their leaves by name and by path, and whether all numbers are finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spct_jax.errors import InputError

TreePath = tuple[str, ...]
"""The keys that lead to a parameter."""


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """(name, leaf) of every leaf, names like `blocks/0/mlp/gate`."""
    return [(leaf_name(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def leaf_name(path: Any) -> str:
    """The name of a leaf, given JAX's key path to it."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def get_at(tree: Any, path: TreePath) -> Any:
    """What stands at a path of nested dictionaries."""
    for key in path:
        tree = tree[key]
    return tree


def set_at(tree: dict, path: TreePath, value: Any) -> None:
    """Puts a value at a path of nested dictionaries, which are made where they are missing."""
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def check_finite(params: Any, where: Any) -> None:
    """Raises InputError naming `where` and the first parameter that holds NaN or an infinite number."""
    if name := first_not_finite(params):
        raise InputError(f"weights of {where} hold NaN or infinite numbers (in {name})")


def first_not_finite(tree: Any) -> str | None:
    """The name of the first array of a tree that holds NaN or an infinite number; None where none does."""
    finite = np.asarray(_finite(jax.tree.leaves(tree)))
    return None if finite.all() else named_leaves(tree)[int(np.argmin(finite))][0]


@jax.jit
def _finite(leaves: list[jax.Array]) -> jax.Array:
    """Bool[number of leaves]: whether all numbers of each are finite."""

    def is_finite(leaf):
        # NaN is the maximum of whatever it is among; XLA's CPU backend takes that of many columns at a time.
        return jnp.isfinite(jnp.max(jnp.abs(leaf), axis=tuple(range(leaf.ndim - 1)), initial=0)).all()

    return jnp.stack([is_finite(leaf) for leaf in leaves])
