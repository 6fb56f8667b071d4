"""Models in Hugging Face's layout (`config.json`, `*.safetensors`), read into our tree and written from it.

Besides what is returned or written, no more than one stacked parameter is in memory: tensors are read one by one, and a
parameter goes to its devices before the next is read.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from spct_jax.checkpoints import (
    array_digests,
    chat_files,
    config_json,
    families,
    leaves,
    safetensors_files,
    tokenizer_and_templates,
)
from spct_jax.checkpoints.families import Family, Tensor
from spct_jax.checkpoints.leaves import TreePath
from spct_jax.checkpoints.model import COMPUTE, Model, Shardings, digest_of
from spct_jax.checkpoints.model_kind import ModelKind, abstract_params
from spct_jax.checkpoints.safetensors_files import DTYPES, Shards, ToWrite
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.models import stack
from spct_jax.models.config import ModelConfig
from spct_jax.storage import files, paths
from spct_jax.storage.paths import Path

SHARD_BYTES = 5 * 10**9
GENERATION_CONFIG = "generation_config.json"


def is_hf_directory(directory: str | os.PathLike) -> bool:
    """Whether a directory holds a model as Hugging Face stores it."""
    directory = paths.of(directory)
    return (directory / "config.json").is_file() and bool(files.matching(directory, "*.safetensors*"))


def read_weights(
    directory: str | os.PathLike,
    *,
    kind: ModelKind | None = None,
    dtype: str | None = "float32",
    num_tokens: int = 0,
    shardings: Any = None,
) -> tuple[Any, ModelConfig, ModelKind]:
    """Reads a model in Hugging Face's layout.

    Args:
      directory: has `config.json` and one or several safetensors files.
      kind: what the weights must be. None: what the directory says; a sequence classifier that does not say is a meta RM.
      dtype: of the parameters and the activations; None keeps that of the files; COMPUTE does, too, but takes bfloat16 for
        float16, in whose range the activations of these models do not fit.
      num_tokens: pieces of the tokenizer, if known; further rows of the tables are padding.
      shardings: where each parameter goes, a tree like the parameters; None for the default device.

    Returns:
      (parameters, the architecture, what they are).

    Raises:
      InputError: a field or tensor is not one of this model's, or a file cannot be read; the message names it.
    """
    directory = paths.of(directory)
    if dtype not in (None, COMPUTE, *DTYPES):
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    config, kinds, family = config_json.read_config(directory / "config.json", dtype if dtype in DTYPES else "float32")
    kind = kind or kinds[0]
    if kind not in kinds:
        raise InputError(f"{directory}: holds a {kinds[0]} checkpoint, not a {kind} one")
    shards = Shards(directory, family)
    parameters = _parameters(family, config, kind)
    expected = {name: parameter.tensor.shape for parameter in parameters for name in parameter.names}
    has_spare_head = config.tied and not kind.has_head and family.lm_head in shards.shapes
    if has_spare_head:
        _check_equal_head(shards, family)
    shards.check(expected, (family.lm_head,) if has_spare_head else ())
    if dtype in (None, COMPUTE):
        stored = shards.widest_dtype(expected)
        dtype = "bfloat16" if dtype == COMPUTE and stored == "float16" else stored
    if num_tokens > config.vocab_size:
        raise InputError(f"{directory}: the tokenizer has {num_tokens} pieces, the model {config.vocab_size} rows")
    config = dataclasses.replace(config, dtype=dtype, num_tokens=num_tokens if num_tokens != config.vocab_size else 0)

    params: dict[str, Any] = {}
    with tqdm.tqdm(desc=f"reading {directory.name}", total=len(expected), unit="tensor", mininterval=1) as bar:
        for parameter in parameters:
            sharding = None if shardings is None else leaves.get_at(shardings, parameter.path)
            array = _to_devices(_read_parameter(shards, parameter, jnp.dtype(dtype)), jnp.dtype(dtype), sharding)
            leaves.set_at(params, parameter.path, array)
            bar.update(len(parameter.names))
    return params, config, kind


def load(directory: Path, kind: ModelKind, dtype: str | None, shardings: Shardings | None, file: str = "") -> Model:
    """A model with its tokenizer, from `file` if given, and templates; arguments and errors as of `checkpoints.load`."""
    if dtype in (None, COMPUTE) and jax.default_backend() == "cpu":
        dtype = "float32"
    tokenizer = read_tokenizer(directory, file)
    where = None
    if shardings is not None:
        config = config_json.read_config(directory / "config.json").config
        where = shardings(abstract_params(config, kind))
    params, config, _ = read_weights(directory, kind=kind, dtype=dtype, num_tokens=tokenizer.vocab_size, shardings=where)
    prompt = tokenizer_and_templates.read_templates(directory)
    digest = digest_of(array_digests.of_tree(params), config, tokenizer, prompt)
    return Model(params, config, tokenizer, kind, prompt=prompt, digest=digest)


def read_tokenizer(directory: Path, file: str = "") -> Tokenizer:
    """The tokenizer of a directory, with all ids that the model stops at; `file` stands in for its own."""
    config_json.read_config(directory / "config.json")  # other decoders have no SentencePiece model either
    chat = chat_files.read_hf(directory)
    return tokenizer_and_templates.read_tokenizer(directory, GENERATION_CONFIG, "eos_token_id", chat, file)


def load_hf(directory: str | os.PathLike, *, dtype: str | None = "float32", shardings: Any = None) -> tuple[Any, ModelConfig]:
    """Loads a causal language model: (parameters, architecture); arguments and errors as of `read_weights`.

    If the directory has a `tokenizer.model`, it tells how many rows of the embedding are tokens.
    """
    path = paths.of(directory)
    num_tokens = read_tokenizer(path).vocab_size if (path / tokenizer_and_templates.TOKENIZER).is_file() else 0
    params, config, kind = read_weights(directory, dtype=dtype, num_tokens=num_tokens, shardings=shardings)
    if kind is not ModelKind.POLICY:
        raise InputError(f"{directory}: holds a sequence classifier, not a causal language model")
    return params, config


def save_hf(
    directory: str | os.PathLike,
    params: Any,
    config: ModelConfig,
    *,
    kind: ModelKind = ModelKind.POLICY,
    tokens: Mapping[str, int] | None = None,
    extra: Callable[[pathlib.Path], None] = lambda directory: None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes safetensors and `config.json` that transformers and vLLM read; all of it or nothing.

    Args:
      directory: must not exist, or be empty.
      params: as `kind` says; written in the dtype they have.
      config: the architecture.
      kind: what the parameters are; with a score head they become a sequence classifier with one label.
      tokens: ids for `config.json`, such as {"bos_token_id": 2}.
      extra: writes further files into the directory before it gets its name.
      shard_bytes: upper size of one file (a single tensor may be bigger).

    Raises:
      InputError: the directory holds something, or no model of a family that we know computes what this one does.
    """
    with files.new_directory(directory, sum(leaf.nbytes for leaf in jax.tree.leaves(params))) as scratch:
        dtype = str(jax.tree.leaves(params)[0].dtype)
        files.write_json(scratch / "config.json", config_json.write_config(config, kind, dtype, tokens or {}))
        tensors = _to_write(params, config, kind)
        safetensors_files.write(scratch, tensors, shard_bytes, f"writing {paths.of(directory).name}")
        extra(scratch)


class _Parameter(NamedTuple):
    """One parameter of ours and what it is stored as."""

    path: TreePath
    tensor: Tensor
    names: list[str]
    """Without prefix: one name, or one for each layer of a stacked parameter."""
    stacked: bool


def stored_shapes(config: ModelConfig, kind: ModelKind = ModelKind.POLICY) -> dict[str, tuple[int, ...]]:
    """The name, with its prefix, and the shape of every tensor that `save_hf` writes."""
    family = families.family_of(config)
    return {
        _full_name(family, name): parameter.tensor.shape
        for parameter in _parameters(family, config, kind)
        for name in parameter.names
    }


def _parameters(family: Family, config: ModelConfig, kind: ModelKind) -> list[_Parameter]:
    table = (config.vocab_size, config.width)
    outside = {
        (*kind.decoder_path, "embedder", "input_embedding"): Tensor(family.embedding, table),
        (*kind.decoder_path, "final_norm", "scale"): Tensor(family.final_norm, (config.width,)),
    }
    if kind.has_head:
        outside[("head", "score")] = Tensor(family.score_head, (1, config.width), lambda x: x[0], lambda x: x[None])
    elif not config.tied:
        outside[("embedder", "output_embedding")] = Tensor(family.lm_head, table)
    return [_Parameter(path, tensor, [tensor.name], False) for path, tensor in outside.items()] + [
        _Parameter(
            (*kind.decoder_path, *entry.path, *path),
            tensor,
            [f"{family.layers}.{layer}.{tensor.name}" for layer in entry.layers],
            bool(entry.leading),
        )
        for entry in stack.entries(config)
        for path, tensor in family.layer_tensors(config, entry.layers[0]).items()
    ]


def _full_name(family: Family, name: str) -> str:
    return name if name in (family.lm_head, family.score_head) else family.prefix + name


def _read_parameter(shards: Shards, parameter: _Parameter, dtype: np.dtype) -> np.ndarray:
    """A parameter in a dtype, or in that of the files if that is narrower and `dtype` holds it: see `_to_devices`."""
    tensor, stored = parameter.tensor, jnp.dtype(shards.widest_dtype(parameter.names))
    if dtype == np.float32 and stored.itemsize < dtype.itemsize:
        dtype = stored
    if not parameter.stacked:
        return np.asarray(tensor.from_hf(shards.read(parameter.names[0])), dtype)
    layer_shape = tensor.from_hf(np.empty(tensor.shape, np.int8)).shape
    array = _aligned_empty((len(parameter.names), *layer_shape), dtype)
    for row, name in enumerate(parameter.names):
        array[row] = tensor.from_hf(shards.read(name))
    return array


def _aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array whose memory JAX takes over on CPU, where it would copy one that is not aligned."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def _check_equal_head(shards: Shards, family: Family) -> None:
    embedding, head = (shards.read(name) for name in (family.embedding, family.lm_head))
    if not np.array_equal(embedding, head):
        name = f"{shards.directory}: {family.lm_head}"
        raise InputError(f"{name} differs from the embedding although tie_word_embeddings is set in config.json")


def _to_devices(host: np.ndarray, dtype: np.dtype, sharding: jax.sharding.Sharding | None) -> jax.Array:
    """Waits until the parameter is where it belongs, so that no more than one is ever under way.

    It gets its dtype there: fewer bytes are sent, and NumPy takes a second and a half to widen a table of 262,144 pieces.
    """
    if sharding is None:
        array = jnp.asarray(host)
    else:
        array = jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
    return jax.block_until_ready(array if array.dtype == dtype else _widen(array, dtype))


@functools.partial(jax.jit, static_argnums=1)
def _widen(array: jax.Array, dtype: np.dtype) -> jax.Array:
    return array.astype(dtype)


def _to_write(params: Any, config: ModelConfig, kind: ModelKind) -> list[ToWrite]:
    """What `save_hf` writes, in order; the arrays are made when they are written."""
    family = families.family_of(config)
    tensors = []
    for parameter in _parameters(family, config, kind):
        leaf, tensor = leaves.get_at(params, parameter.path), parameter.tensor
        size = int(np.prod(tensor.shape)) * leaf.dtype.itemsize
        for row, name in enumerate(parameter.names):

            def make(leaf=leaf, tensor=tensor, row=row if parameter.stacked else None):
                return tensor.to_hf(np.asarray(leaf if row is None else leaf[row]))

            tensors.append(ToWrite(_full_name(family, name), size, make))
    return tensors
