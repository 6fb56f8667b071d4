"""Google's own Flax layout of checkpoints (Orbax, `transformer/layer_i/...`), read into our tree.

Nested trees and trees with `/` in their names are read, with or without `params` and `transformer` before them, `{"w": array}`
or the array itself. What the arrays of a layer are called is in `families`.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from spct_jax.checkpoints import families, leaves, orbax_arrays
from spct_jax.errors import InputError
from spct_jax.models import stack
from spct_jax.models.config import ModelConfig
from spct_jax.storage import files, paths

_DTYPES = (np.dtype("float32"), jnp.dtype("bfloat16"), np.dtype("float16"))


def is_google_directory(directory: str | os.PathLike) -> bool:
    """Whether a directory is a bare Orbax checkpoint, as Google publishes its models."""
    directory = paths.of(directory)
    return (directory / "_METADATA").is_file() or (directory / "checkpoint").is_file()


def load_google(directory: str | os.PathLike, config: ModelConfig, *, dtype: str = "float32") -> tuple[Any, ModelConfig]:
    """Reads a checkpoint in Google's layout.

    Args:
      directory: an Orbax checkpoint.
      config: the size; its vocabulary tells how many of the table's rows are tokens.
      dtype: of parameters and activations.

    Returns:
      (parameters, the architecture with as many rows as the checkpoint's table has).

    Raises:
      InputError: no such checkpoint, or a parameter is missing, unexpected or misshapen; the message names it.
    """
    path = paths.absolute(paths.of(directory))
    files.check_regular(path)
    try:
        with ocp.PyTreeCheckpointer() as reader:
            if (path / "_METADATA").exists():
                files.read_bytes(path / "_METADATA")
                # Shapes first: what a file claims may be more than there is memory. These arrays take none.
                claimed = getattr(reader.metadata(path).item_metadata, "tree", None)
                if claimed is None:
                    raise InputError(f"{directory}: not an Orbax checkpoint (an array that it names is not there)")
                empty = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), claimed)
                _take_all(empty, config, str(directory))
                orbax_arrays.check_claims(claimed)
            tree = reader.restore(path)
    except InputError:
        raise
    except Exception as error:  # Orbax and TensorStore raise unrelated types for files they cannot read
        raise InputError(f"{directory}: not an Orbax checkpoint ({' '.join(str(error).split())[:300]})") from None
    return from_google(tree, config, dtype=dtype, where=str(directory))


def from_google(tree: Any, config: ModelConfig, *, dtype: str, where: str) -> tuple[Any, ModelConfig]:
    """`load_google` for a tree that is already in memory; `where` begins its error messages."""
    params, layers = _take_all(tree, config, where)
    params |= stack.from_layers(config, layers)
    rows = params["embedder"]["input_embedding"].shape[0]
    num_tokens = config.vocab_size if rows > config.vocab_size else 0
    size = dataclasses.replace(config, vocab_size=rows, num_tokens=num_tokens, dtype=dtype)
    return jax.tree.map(lambda x: jnp.asarray(np.ascontiguousarray(x), jnp.dtype(dtype)), params), size


def _take_all(tree: Any, config: ModelConfig, where: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(parameters outside the layers, those of each layer), in our names and axes, as views; errors as of `load_google`."""
    flat = _flatten(tree)
    found = {_plain(name): leaf for name, leaf in flat}
    if len(found) != len(flat):
        raise InputError(f"{where}: two parameters have the same name")
    family = families.family_of(config)
    if family.google_arrays is None:
        raise InputError(f"{where}: no checkpoints of {family.model_type} in Google's layout are supported")

    def take(name: str, *shapes: tuple[int, ...]) -> np.ndarray:
        if name not in found:
            raise InputError(f"{where}: parameter {name} is missing")
        array = np.asarray(found.pop(name))
        if array.shape not in shapes:
            raise InputError(f"{where}: parameter {name} is {array.shape}, not {' or '.join(map(str, shapes))}")
        if array.dtype not in _DTYPES:
            raise InputError(f"{where}: parameter {name} is {array.dtype}; {', '.join(map(str, _DTYPES))} are supported")
        return array

    def layer(i: int) -> dict[str, Any]:
        prefix = f"layer_{i}/"
        names = {name.removeprefix(prefix) for name in found if name.startswith(prefix)}
        block: dict[str, Any] = {}
        for stored in family.google_arrays(config, names):
            for path, array in stored.split(take(prefix + stored.name, *stored.shapes)).items():
                leaves.set_at(block, path, array)
        return block

    rows = found["embedder/input_embedding"].shape[0] if "embedder/input_embedding" in found else config.vocab_size
    if rows < config.vocab_size:
        raise InputError(f"{where}: embedder/input_embedding has {rows} rows, fewer than {config.vocab_size} tokens")
    if rows > 2 * config.vocab_size:
        raise InputError(f"{where}: embedder/input_embedding has {rows} rows, far more than {config.vocab_size} tokens")
    params: dict[str, Any] = {
        "embedder": {"input_embedding": take("embedder/input_embedding", (rows, config.width))},
        "final_norm": {"scale": take("final_norm/scale", (config.width,))},
    }
    layers = [layer(i) for i in range(config.num_layers)]
    if found:
        raise InputError(f"{where}: parameter {min(found)} is not part of this model")
    return params, layers


def _flatten(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(tree, dict):
        return [(prefix, tree)]
    return [pair for name, value in tree.items() for pair in _flatten(value, f"{prefix}/{name}")]


def _plain(name: str) -> str:
    """A parameter's name without what differs between writers: what stands before it, and a closing `/w`."""
    keys = [key for key in name.split("/") if key]
    while keys and keys[0] in ("params", "transformer"):
        keys.pop(0)
    if keys and keys[-1] == "w":
        keys.pop()
    return "/".join(keys)
