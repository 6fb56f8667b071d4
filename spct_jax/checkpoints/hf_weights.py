"""Weights in Hugging Face's layout (`*.safetensors`), read into our tree and written from it, one parameter at a time.

Nothing bigger than one stacked parameter is ever held beside what is returned or written: tensors are read from their
shards one by one, and a parameter goes to its devices before the next is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
import tqdm

from spct_jax import files
from spct_jax.checkpoints import hf_config
from spct_jax.checkpoints.kinds import ModelKind
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.models import stack
from spct_jax.models.config import ModelConfig

PREFIXES = ("model.language_model.", "language_model.model.", "model.")
_VISION = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
DTYPES = tuple(_DTYPES.values())
SHARD_BYTES = 5 * 10**9

TreePath = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One parameter of a layer, or outside the layers, in both layouts.

    Attributes:
      name: theirs, behind the prefix.
      shape: theirs.
      from_hf: their array to ours; a view.
      to_hf: ours to theirs; a view.
    """

    name: str
    shape: tuple[int, ...]
    from_hf: Callable[[np.ndarray], np.ndarray] = lambda x: x
    to_hf: Callable[[np.ndarray], np.ndarray] = lambda x: x


def layer_tensors(c: ModelConfig) -> dict[TreePath, Tensor]:
    """Path inside a block of ours -> the tensor of a layer."""
    D, F, N, K, H = c.width, c.ffw_width, c.num_heads, c.num_kv_heads, c.head_dim

    def heads(name, count):
        return Tensor(
            f"self_attn.{name}.weight",
            (count * H, D),
            lambda x: x.reshape(count, H, D).transpose(2, 0, 1),
            lambda x: x.transpose(1, 2, 0).reshape(count * H, D),
        )

    def transposed(name, shape):
        return Tensor(f"mlp.{name}.weight", shape, np.transpose, np.transpose)

    tensors = {
        ("attn", "q"): heads("q_proj", N),
        ("attn", "k"): heads("k_proj", K),
        ("attn", "v"): heads("v_proj", K),
        ("attn", "out"): Tensor(
            "self_attn.o_proj.weight",
            (D, N * H),
            lambda x: x.reshape(D, N, H).transpose(1, 2, 0),
            lambda x: x.transpose(2, 0, 1).reshape(D, N * H),
        ),
        ("mlp", "gate"): transposed("gate_proj", (F, D)),
        ("mlp", "up"): transposed("up_proj", (F, D)),
        ("mlp", "down"): transposed("down_proj", (D, F)),
        ("pre_attention_norm", "scale"): Tensor("input_layernorm.weight", (D,)),
        ("post_attention_norm", "scale"): Tensor("post_attention_layernorm.weight", (D,)),
        ("pre_ffw_norm", "scale"): Tensor("pre_feedforward_layernorm.weight", (D,)),
        ("post_ffw_norm", "scale"): Tensor("post_feedforward_layernorm.weight", (D,)),
    }
    if c.qk_norm:
        tensors[("attn", "q_norm", "scale")] = Tensor("self_attn.q_norm.weight", (H,))
        tensors[("attn", "k_norm", "scale")] = Tensor("self_attn.k_norm.weight", (H,))
    return tensors


def outer_tensors(c: ModelConfig, kind: ModelKind) -> dict[TreePath, Tensor]:
    """Path in our tree -> a tensor outside the layers; `lm_head.` and `score.` names have no prefix."""
    root = kind.decoder_path
    tensors = {
        (*root, "embedder", "input_embedding"): Tensor("embed_tokens.weight", (c.vocab_size, c.width)),
        (*root, "final_norm", "scale"): Tensor("norm.weight", (c.width,)),
    }
    if not c.tied and kind is ModelKind.POLICY:
        tensors[(*root, "embedder", "output_embedding")] = Tensor("lm_head.weight", (c.vocab_size, c.width))
    if kind is ModelKind.META_RM:
        tensors[("head", "score")] = Tensor("score.weight", (1, c.width), lambda x: x[0], lambda x: x[None])
    return tensors


def stacks(c: ModelConfig, kind: ModelKind) -> Iterator[tuple[TreePath, stack.LayerStack]]:
    """(path in our tree, which layers are there) of every stack of layers."""
    root = kind.decoder_path
    for entry in stack.entries(c):
        yield (*root, *entry.path), entry


class Shards:
    """The tensors of a directory of safetensors files, by name without prefix; reads one at a time.

    Raises:
      InputError: no file, an unreadable or missing one, or two tensors of one name.
    """

    def __init__(self, directory: str | os.PathLike):
        self.directory = pathlib.Path(directory)
        self._where: dict[str, tuple[pathlib.Path, str]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        for path in self._files():
            with _opened(path) as file:
                for full in file.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                    name = _short(full)
                    if name in self._where:
                        raise InputError(f"{path}: tensor {full} is also in {self._where[name][0].name}")
                    about = file.get_slice(full)
                    self._where[name] = path, full
                    self.shapes[name] = tuple(about.get_shape())
                    self.dtypes[name] = about.get_dtype()

    def _files(self) -> list[pathlib.Path]:
        index = self.directory / "model.safetensors.index.json"
        if os.path.lexists(index):
            names = files.read_json(index).get("weight_map")
            if not isinstance(names, dict):
                raise InputError(f"{index}: has no weight_map")
            for tensor, name in names.items():
                if not isinstance(name, str):
                    raise InputError(f"{index}: weight_map has {name!r} for {tensor}, which is no file name")
            found = sorted(set(names.values()))
        else:
            found = sorted(path.name for path in self.directory.glob("*.safetensors"))
        shards = [files.contained(self.directory, name) for name in found]
        if not shards:
            raise InputError(f"{self.directory}: holds no *.safetensors file")
        return shards

    def read(self, name: str) -> np.ndarray:
        """One tensor; nothing of its file stays mapped."""
        path, full = self._where[name]
        with _opened(path) as file:
            return file.get_tensor(full)

    def check(self, expected: dict[str, tuple[int, ...]], ignored: tuple[str, ...]) -> None:
        """Raises InputError naming the first tensor that is unexpected, missing, misshapen or of a strange dtype."""
        for name in sorted(self.shapes.keys() | expected.keys()):
            where = self._where.get(name, (self.directory, name))
            if name not in self.shapes:
                raise InputError(f"{self.directory}: tensor {name} is missing")
            if name.startswith(ignored) or name.endswith("rotary_emb.inv_freq"):
                continue
            if name not in expected:
                raise InputError(f"{where[0]}: tensor {where[1]} is not part of this model")
            if self.shapes[name] != expected[name]:
                raise InputError(f"{where[0]}: tensor {where[1]} is {self.shapes[name]}, {expected[name]} by config.json")
            if self.dtypes[name] not in _DTYPES:
                raise InputError(f"{where[0]}: tensor {where[1]} is {self.dtypes[name]}; {', '.join(_DTYPES)} are supported")

    def widest_dtype(self, names) -> str:
        """The dtype that holds all of these tensors without loss."""
        found = {_DTYPES[self.dtypes[name]] for name in names}
        return found.pop() if len(found) == 1 else "float32"


@contextlib.contextmanager
def _opened(path: pathlib.Path):
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a regular file")
    try:
        with safetensors.safe_open(path, "np") as file:
            yield file
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None


def _short(name: str) -> str:
    """A tensor's name without the prefix, of which three are in use."""
    for prefix in PREFIXES:
        if name.startswith(prefix) and not name.startswith(_VISION):
            return name.removeprefix(prefix)
    return name.removeprefix("language_model.")


def is_hf_directory(directory: str | os.PathLike) -> bool:
    """Whether a directory holds a model as Hugging Face stores it."""
    directory = pathlib.Path(directory)
    return (directory / "config.json").is_file() and any(directory.glob("*.safetensors*"))


def read_weights(
    directory: str | os.PathLike, *, dtype: str | None = "float32", num_tokens: int = 0, shardings: Any = None
) -> tuple[Any, ModelConfig, ModelKind]:
    """Reads a checkpoint in Hugging Face's layout.

    Args:
      directory: has `config.json` and one or several safetensors files.
      dtype: of the parameters and the activations; None keeps that of the files.
      num_tokens: pieces of the tokenizer, if known; further rows of the tables are padding.
      shardings: where each parameter goes, a tree like the parameters; None for the default device.

    Returns:
      (parameters, the architecture, what they are).

    Raises:
      InputError: a field or tensor is not one of this model's, or a file cannot be read; the message names it.
    """
    directory = pathlib.Path(directory)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    config, kind = hf_config.read_config(directory / "config.json", dtype or "float32")
    shards = Shards(directory)
    outer, inner, plan = outer_tensors(config, kind), layer_tensors(config), list(stacks(config, kind))
    expected = {t.name: t.shape for t in outer.values()}
    expected |= {f"layers.{i}.{t.name}": t.shape for _, entry in plan for i in entry.layers for t in inner.values()}
    ignored = _VISION
    if config.tied and "lm_head.weight" in shards.shapes and kind is ModelKind.POLICY:
        _check_tied(shards)
        ignored += ("lm_head.weight",)
    shards.check(expected, ignored)
    dtype = dtype or shards.widest_dtype(expected)
    if num_tokens > config.vocab_size:
        raise InputError(f"{directory}: the tokenizer has {num_tokens} pieces, the model {config.vocab_size} rows")
    config = dataclasses.replace(config, dtype=dtype, num_tokens=num_tokens if num_tokens != config.vocab_size else 0)

    params: dict[str, Any] = {}
    with tqdm.tqdm(desc=f"reading {directory.name}", total=len(expected), unit="tensor", mininterval=1) as bar:

        def put(path, host):
            sharding = _at(shardings, path) if shardings is not None else None
            _set(params, path, _place(host, sharding))

        for path, tensor in outer.items():
            put(path, np.asarray(tensor.from_hf(shards.read(tensor.name)), jnp.dtype(dtype)))
            bar.update()
        for path, entry in plan:
            for inside, tensor in inner.items():
                stacked = _read_stack(shards, tensor, entry.layers, dtype)
                put((*path, *inside), stacked if entry.leading else stacked[0])
                del stacked
                bar.update(len(entry.layers))
    return params, config, kind


def load_hf(directory: str | os.PathLike, *, dtype: str | None = "float32", shardings: Any = None) -> tuple[Any, ModelConfig]:
    """Loads a causal language model: (parameters, architecture); arguments and errors as of `read_weights`.

    A `tokenizer.model` beside the weights tells how many rows of the embedding are tokens.
    """
    path = pathlib.Path(directory) / "tokenizer.model"
    num_tokens = Tokenizer.load(path).vocab_size if path.is_file() else 0
    params, config, kind = read_weights(directory, dtype=dtype, num_tokens=num_tokens, shardings=shardings)
    if kind is not ModelKind.POLICY:
        raise InputError(f"{directory}: holds a sequence classifier, not a causal language model")
    return params, config


def _read_stack(shards: Shards, tensor: Tensor, layers: tuple[int, ...], dtype: str) -> np.ndarray:
    first = tensor.from_hf(np.empty(tensor.shape, np.int8))
    stacked = _aligned_empty((len(layers), *first.shape), jnp.dtype(dtype))
    for row, i in enumerate(layers):
        stacked[row] = tensor.from_hf(shards.read(f"layers.{i}.{tensor.name}"))
    return stacked


def _aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array whose memory JAX takes over on CPU, where it would copy one that is not aligned."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def _check_tied(shards: Shards) -> None:
    embedding, head = (shards.read(name) for name in ("embed_tokens.weight", "lm_head.weight"))
    if not np.array_equal(embedding, head):
        raise InputError(
            f"{shards.directory}: lm_head.weight differs from the embedding although tie_word_embeddings is set in config.json"
        )


def _place(host: np.ndarray, sharding: jax.sharding.Sharding | None) -> jax.Array:
    """Waits until the parameter is where it belongs, so that no more than one is ever under way."""
    if sharding is None:
        return jax.block_until_ready(jnp.asarray(host))
    return jax.block_until_ready(jax.make_array_from_callback(host.shape, sharding, lambda index: host[index]))


def _set(tree: dict, path: TreePath, value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def _at(tree: Any, path: TreePath) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def save_hf(
    directory: str | os.PathLike,
    params: Any,
    config: ModelConfig,
    *,
    kind: ModelKind = ModelKind.POLICY,
    tokens: dict[str, int] | None = None,
    extra: Callable[[pathlib.Path], None] = lambda directory: None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes safetensors and `config.json` that transformers and vLLM read; whole or not at all.

    Args:
      directory: must not exist, or be empty.
      params: as of `models.init`, or for a meta RM {"model", "head"}; written in the dtype they have.
      config: the architecture.
      kind: what the parameters are; a meta RM becomes a sequence classifier with one label.
      tokens: ids for `config.json`, such as {"bos_token_id": 2}.
      extra: writes further files into the directory before it gets its name.
      shard_bytes: upper size of one file (a single tensor may be bigger).

    Raises:
      InputError: the directory holds something, or no Hugging Face model computes what this one does.
    """
    with files.new_directory(directory, sum(leaf.nbytes for leaf in jax.tree.leaves(params))) as scratch:
        dtype = str(jax.tree.leaves(params)[0].dtype)
        card = hf_config.write_config(config, kind, dtype, tokens or {})
        files.write_json(scratch / "config.json", card)
        plan, sizes = _plan_files(params, config, kind, shard_bytes)
        weight_map = {}
        with tqdm.tqdm(desc=f"writing {pathlib.Path(directory).name}", total=len(sizes), unit="tensor", mininterval=1) as bar:
            for number, members in enumerate(plan, start=1):
                name = "model.safetensors" if len(plan) == 1 else f"model-{number:05d}-of-{len(plan):05d}.safetensors"
                arrays = {}
                for full, make in members:
                    arrays[full] = np.ascontiguousarray(make())
                    weight_map[full] = name
                    bar.update()
                safetensors.numpy.save_file(arrays, scratch / name, metadata={"format": "pt"})
        if len(plan) > 1:
            index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
            files.write_json(scratch / "model.safetensors.index.json", index)
        extra(scratch)


def _plan_files(params: Any, config: ModelConfig, kind: ModelKind, shard_bytes: int):
    """([[(their name, a function that makes the array), ..] per file], bytes of every tensor)."""
    members = []

    def add(name, leaf, tensor, row=None):
        full = name if name.startswith(("lm_head.", "score.")) else "model." + name
        size = int(np.prod(tensor.shape)) * leaf.dtype.itemsize
        members.append((size, (full, lambda: tensor.to_hf(np.asarray(leaf if row is None else leaf[row])))))

    for path, tensor in outer_tensors(config, kind).items():
        add(tensor.name, _at(params, path), tensor)
    for path, entry in stacks(config, kind):
        for inside, tensor in layer_tensors(config).items():
            leaf = _at(params, (*path, *inside))
            for row, i in enumerate(entry.layers):
                add(f"layers.{i}.{tensor.name}", leaf, tensor, row if entry.leading else None)
    plan, room = [], 0
    for size, member in members:
        if not plan or size > room:
            plan.append([])
            room = shard_bytes
        plan[-1].append(member)
        room -= size
    return plan, [size for size, _ in members]
