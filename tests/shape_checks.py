"""Imported before the package: types and shapes in its signatures are checked in tests, and only there."""

import beartype
from jaxtyping import install_import_hook

CHECKED = (
    "spct_jax.models",
    "spct_jax.sampling.engine",
    "spct_jax.sampling.engine_params",
    "spct_jax.sampling.engine_programs",
    "spct_jax.sampling.generate",
    "spct_jax.sampling.kernel",
    "spct_jax.sampling.token",
    "spct_jax.training",
)

_check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def check(function):
    """Checks a function, but not the fields of structs: jax.tree.map rebuilds those with shapes or shardings in them."""
    return function if function.__name__ == "__init__" else _check(function)


install_import_hook(CHECKED, f"{__name__}.check")
