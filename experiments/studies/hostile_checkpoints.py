"""Hostile checkpoints: each a small model directory of one of our layouts in which one thing is made wrong.

`CASES` maps a name, `layout: what is wrong`, to what makes it so; none of these directories may be loaded.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors.numpy

from spct_jax.storage import digests

Spoil = Callable[[pathlib.Path], Any]

CONFIG = {
    "architectures": "Gemma2ForCausalLM",
    "attention_bias": True,
    "attn_logit_softcapping": -1,
    "final_logit_softcapping": float("nan"),
    "head_dim": 7,
    "hidden_activation": ["gelu_pytorch_tanh"],
    "hidden_size": "64",
    "intermediate_size": 160.5,
    "layer_types": {"0": "sliding_attention"},
    "max_position_embeddings": -5,
    "model_type": ["gemma2"],
    "num_attention_heads": 0,
    "num_hidden_layers": 10**9,
    "num_key_value_heads": 3,
    "query_pre_attn_scalar": 0,
    "quantization_config": {"bits": 4},
    "rms_norm_eps": "tiny",
    "rope_parameters": [1e4],
    "sliding_window": 1 << 80,
    "tie_word_embeddings": "no",
    "vocab_size": 1 << 62,
}
"""One value for each field of `config.json` that cannot be."""

SHARD = "model-00002-of-00005.safetensors"
INDEX = "model.safetensors.index.json"
ZARR = "transformer.embedder.input_embedding"


def edit(name: str, **fields: Any) -> Spoil:
    """Changes fields of a JSON object; a card of ours gets the digest that its new content has."""

    def spoil(directory: pathlib.Path) -> None:
        path = directory / name
        value = json.loads(path.read_text()) | fields
        if value.pop("digest", None):
            value["digest"] = digests.of_json(value)
        path.write_text(json.dumps(value))

    return spoil


def put(name: str, content: bytes | str) -> Spoil:
    """Writes a file over one that is there."""

    def spoil(directory: pathlib.Path) -> None:
        (directory / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def cut(name: str, share: float = 0.5) -> Spoil:
    """Leaves the first part of a file."""

    def spoil(directory: pathlib.Path) -> None:
        os.truncate(directory / name, int((directory / name).stat().st_size * share))

    return spoil


def grow(name: str, size: int) -> Spoil:
    """Makes a file huge, with a hole that takes no room on the disk."""
    return lambda directory: os.truncate(directory / name, size)


def instead(name: str, make: Callable[[pathlib.Path], Any]) -> Spoil:
    """Something else where a file or a directory was."""

    def spoil(directory: pathlib.Path) -> None:
        path = directory / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return spoil


def link(name: str, to: str) -> Spoil:
    """A symbolic link instead."""
    return instead(name, lambda path: path.symlink_to(to))


def fifo(name: str) -> Spoil:
    """A pipe that nobody writes to instead."""
    return instead(name, os.mkfifo)


def folder(name: str) -> Spoil:
    """A directory instead."""
    return instead(name, pathlib.Path.mkdir)


def gone(name: str) -> Spoil:
    """Nothing instead."""
    return instead(name, lambda path: None)


def tensors(change: Callable[[dict[str, np.ndarray]], Any], name: str = SHARD) -> Spoil:
    """Changes the tensors of a file of weights; `change` gets them by name, and may return others."""

    def spoil(directory: pathlib.Path) -> None:
        table = {key: value.copy() for key, value in safetensors.numpy.load_file(directory / name).items()}
        safetensors.numpy.save_file(change(table) or table, directory / name)

    return spoil


def value_of_first(value: Any) -> Spoil:
    """One number of the first tensor."""
    return tensors(lambda table: next(iter(table.values())).flat.__setitem__(3, value))


def every_tensor(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    """All tensors of a file changed."""
    return tensors(lambda table: {name: change(array) for name, array in table.items()})


def weight_map(value: Any) -> Spoil:
    """The file that the index names for the first tensor."""

    def spoil(directory: pathlib.Path) -> None:
        index = json.loads((directory / INDEX).read_text())
        index["weight_map"][min(index["weight_map"])] = value
        (directory / INDEX).write_text(json.dumps(index))

    return spoil


def safetensors_header(text: bytes, claimed: int | None = None) -> bytes:
    """A file of weights with this header and no numbers."""
    return (len(text) if claimed is None else claimed).to_bytes(8, "little") + text


def chunk_of(directory: pathlib.Path) -> str:
    """The largest file of numbers of a checkpoint of ours."""
    return str(max((directory / "checkpoints/0/params").rglob("d/*"), key=lambda path: path.stat().st_size))


def zarr(**fields: Any) -> Spoil:
    """The description of the embedding in Google's layout."""
    return edit(f"{ZARR}/.zarray", **fields)


CLAIM = {"x": {"dtype": "F32", "shape": [1 << 40, 64], "data_offsets": [0, 1 << 48]}}
DEEP = "[" * 200_000
CASES: dict[str, Spoil] = {
    **{f"hf: {field} is {str(value)[:24]}": edit("config.json", **{field: value}) for field, value in CONFIG.items()},
    "hf: config.json empty": put("config.json", ""),
    "hf: config.json a list": put("config.json", "[]"),
    "hf: config.json brackets 200,000 deep": put("config.json", DEEP),
    "hf: config.json not text": put("config.json", b"\xff\xfe{}"),
    "hf: config.json with an integer of 5,000 digits": put("config.json", '{"model_type": ' + "9" * 5000 + "}"),
    "hf: config.json of 40 GB": grow("config.json", 40 << 30),
    "hf: config.json a pipe": fifo("config.json"),
    "hf: 3,000 aperiodic layer_types": edit(
        "config.json", num_hidden_layers=3000, layer_types=["sliding_attention"] * 2999 + ["full_attention"]
    ),
    "hf: sliding_window_pattern of 10**9": edit("config.json", layer_types=None, sliding_window_pattern=10**9),
    "hf: rope_theta of 400 digits": edit("config.json", rope_parameters={"rope_theta": 10**400}),
    "hf: weight_map null": edit(INDEX, weight_map=None),
    "hf: weight_map names null": weight_map(None),
    "hf: weight_map names a list": weight_map([SHARD]),
    "hf: weight_map names ../x.safetensors": weight_map("../x.safetensors"),
    "hf: weight_map names /etc/passwd": weight_map("/etc/passwd"),
    "hf: weight_map names a missing file": weight_map("model-9.safetensors"),
    "hf: index a pipe": fifo(INDEX),
    "hf: index a directory": folder(INDEX),
    "hf: index not JSON": cut(INDEX),
    "hf: weights cut": cut(SHARD),
    "hf: weights empty": put(SHARD, b""),
    "hf: weights garbage": put(SHARD, bytes(range(256)) * 64),
    "hf: weights with a header of 2**62 bytes": put(SHARD, safetensors_header(b"{}", 1 << 62)),
    "hf: weights with a header of brackets": put(SHARD, safetensors_header(DEEP.encode())),
    "hf: weights that claim 2**40 rows": put(SHARD, safetensors_header(json.dumps(CLAIM).encode())),
    "hf: weights a pipe": fifo(SHARD),
    "hf: weights a directory": folder(SHARD),
    "hf: weights linked out of the directory": link(SHARD, "/etc/passwd"),
    "hf: weights linked to themselves": link(SHARD, SHARD),
    "hf: weights missing": gone(SHARD),
    "hf: a tensor twice": lambda directory: shutil.copy(directory / SHARD, directory / "model-00003-of-00005.safetensors"),
    "hf: a tensor too many": tensors(lambda table: table.update({"model.layers.0.extra.weight": np.zeros(3, np.float32)})),
    "hf: tensors of int8": every_tensor(lambda array: array.astype(np.int8)),
    "hf: tensors of float64": every_tensor(lambda array: array.astype(np.float64)),
    "hf: tensors a row short": every_tensor(lambda array: array[:-1].copy()),
    "hf: weights hold NaN": value_of_first(np.nan),
    "hf: weights hold infinity": value_of_first(np.inf),
    "hf: eos_token_id a string": edit("generation_config.json", eos_token_id="1"),
    "hf: eos_token_id beyond the tokenizer": edit("generation_config.json", eos_token_id=[1, 10**9]),
    "hf: generation_config.json a pipe": fifo("generation_config.json"),
    "hf: generation_config.json not JSON": put("generation_config.json", "{"),
    "hf: tokenizer cut": cut("tokenizer.model"),
    "hf: tokenizer empty": put("tokenizer.model", b""),
    "hf: tokenizer garbage": put("tokenizer.model", bytes(range(256)) * 999),
    "hf: tokenizer of 40 GB": grow("tokenizer.model", 40 << 30),
    "hf: tokenizer a pipe": fifo("tokenizer.model"),
    "hf: tokenizer linked to /dev/zero": link("tokenizer.model", "/dev/zero"),
    "hf: tokenizer missing": gone("tokenizer.model"),
    "hf: template linked to /dev/zero": link("templates/template.txt", "/dev/zero"),
    "hf: template linked out of the directory": link("templates/template.txt", "/etc/passwd"),
    "hf: template a pipe": fifo("templates/template.txt"),
    "hf: template of 40 GB": grow("templates/template.txt", 40 << 30),
    "hf: template not text": put("templates/meta_template.txt", b"\xff\xfe"),
    "hf: template without sections": put("templates/choice_template.txt", "hello"),
    "hf: template missing": gone("templates/single_template.txt"),
    "hf: templates linked out of the directory": link("templates", "/etc"),
    "ours: model.json cut": cut("model.json"),
    "ours: model.json a pipe": fifo("model.json"),
    "ours: kind unknown": edit("model.json", kind="banana"),
    "ours: kind a list": edit("model.json", kind=["policy"]),
    "ours: num_layers of 10**9": edit("model.json", num_layers=10**9),
    "ours: pattern of 10,000": edit("model.json", pattern=["local"] * 9999 + ["global"], num_layers=1024),
    "ours: a width that is not that of the arrays": edit("model.json", width=128),
    "ours: width a string": edit("model.json", width="64"),
    "ours: a field too many": edit("model.json", secret=1),
    "ours: stop_ids strings": edit("model.json", stop_ids=["1"]),
    "ours: digests a list": edit("model.json", digests=[1]),
    "ours: another tokenizer": put("tokenizer.model", b""),
    "ours: no checkpoints": gone("checkpoints"),
    "ours: checkpoints a file": instead("checkpoints", lambda path: path.write_text("x")),
    "ours: an empty step": instead("checkpoints/0", pathlib.Path.mkdir),
    "ours: arrays cut": lambda directory: cut(chunk_of(directory))(directory),
    "ours: arrays a pipe": lambda directory: fifo(chunk_of(directory))(directory),
    "ours: arrays linked out of the directory": lambda directory: link(chunk_of(directory), "/dev/zero")(directory),
    "ours: a bit flipped": lambda directory: flip(pathlib.Path(chunk_of(directory))),
    "ours: digests not JSON": put("checkpoints/0/digests/metadata", DEEP),
    "ours: Orbax metadata not JSON": put("checkpoints/0/params/_METADATA", "{"),
    "google: claims 2**40 rows": zarr(shape=[1 << 40, 64]),
    "google: claims 2**62 rows": zarr(shape=[1 << 62, 64]),
    "google: chunks of 2**40 rows": zarr(chunks=[1 << 40, 64]),
    "google: rows of int8": zarr(dtype="|i1"),
    "google: description of the embedding cut": cut(f"{ZARR}/.zarray"),
    "google: embedding missing": gone(ZARR),
    "google: numbers cut": cut(f"{ZARR}/0.0"),
    "google: numbers missing": gone(f"{ZARR}/0.0"),
    "google: numbers a pipe": fifo(f"{ZARR}/0.0"),
    "google: numbers linked out of the directory": link(f"{ZARR}/0.0", "/etc/passwd"),
    "google: metadata not JSON": put("_METADATA", "{"),
    "google: metadata of 40 GB": grow("_METADATA", 40 << 30),
    "google: metadata of brackets": put("_METADATA", DEEP),
    "google: an older format's file of garbage": lambda directory: (
        gone("_METADATA")(directory),
        put("checkpoint", b"\x01" * 99)(directory),
    ),
}


def flip(path: pathlib.Path) -> None:
    """Turns one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
