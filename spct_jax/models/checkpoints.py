"""A model on disk: `model.json` (what it is), `tokenizer.model`, and Orbax checkpoints of its parameters by step.

    DIR/model.json
    DIR/tokenizer.model
    DIR/checkpoints/<step>/{params,opt_state,progress}

Training stages write this layout and every `--checkpoint` flag reads it.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.models import gemma, heads
from spct_jax.models.sizes import ModelConfig

KINDS = ("policy", "meta_rm")


@dataclasses.dataclass(frozen=True)
class Model:
    """A loaded checkpoint."""

    params: Any
    """Policy: the tree of `gemma.init`; meta RM: {"model": that tree, "head": `heads.init_score_head`}."""
    config: ModelConfig
    tokenizer: Tokenizer
    kind: str
    step: int


def describe(directory: str | os.PathLike, config: ModelConfig, tokenizer: Tokenizer, kind: str = "policy") -> None:
    """Writes what a reader needs beside the parameters."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(directory / "tokenizer.model")
    card = {"kind": kind, **dataclasses.asdict(config)}
    scratch = directory / "model.json.tmp"
    scratch.write_text(json.dumps(card, indent=2) + "\n")
    scratch.replace(directory / "model.json")


def manager(directory: str | os.PathLike, keep: int | None = None) -> ocp.CheckpointManager:
    """The Orbax manager of a model directory; saves are atomic, a torn one is never listed."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False, create=keep is not None)
    return ocp.CheckpointManager(
        pathlib.Path(directory).absolute() / "checkpoints",
        options=options,
        item_handlers={
            "params": ocp.StandardCheckpointHandler(),
            "opt_state": ocp.StandardCheckpointHandler(),
            "progress": ocp.JsonCheckpointHandler(),
        },
    )


def abstract_params(config: ModelConfig, kind: str) -> Any:
    """Shapes and dtypes of a model's parameters, without making them."""
    key = jax.random.key(0)
    model = jax.eval_shape(lambda: gemma.init(config, key))
    if kind == "policy":
        return model
    return {"model": model, "head": jax.eval_shape(lambda: heads.init_score_head(config, key))}


def load(directory: str | os.PathLike, *, kind: str = "policy") -> Model:
    """Loads the newest parameters of a model directory.

    Raises:
      InputError: the directory is no checkpoint, is of another kind, or a leaf differs from what `model.json` says.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory}: no such checkpoint directory")
    config, found_kind = _read_card(directory)
    if found_kind != kind:
        raise InputError(f"{directory}: holds a {found_kind} checkpoint, not a {kind} one")
    tokenizer = Tokenizer.load(directory / "tokenizer.model")
    if not (directory / "checkpoints").is_dir():
        raise InputError(f"{directory}: not a checkpoint (it has no 'checkpoints' folder)")
    with manager(directory) as checkpoints:
        step = checkpoints.latest_step()
        if step is None:
            raise InputError(f"{directory}: not a checkpoint ('checkpoints' holds no finished step)")
        target = abstract_params(config, kind)
        check_tree(checkpoints.item_metadata(step)["params"], target, directory)
        restored = checkpoints.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(target)))
    return Model(params=restored["params"], config=config, tokenizer=tokenizer, kind=kind, step=step)


def _read_card(directory: pathlib.Path) -> tuple[ModelConfig, str]:
    path = directory / "model.json"
    if not path.is_file():
        raise InputError(f"{directory}: not a checkpoint (it has no model.json)")
    try:
        card = json.loads(path.read_text())
        kind = card.pop("kind")
        config = ModelConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in card.items()})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a model description ({error})") from None
    return config, kind


def check_tree(found: Any, expected: Any, where: str | os.PathLike) -> None:
    """Compares a stored tree (or its metadata) with the expected one; names the first differing leaf.

    Raises:
      InputError: a leaf is missing, unexpected, or of another shape.
    """

    def shapes(tree):
        return {jax.tree_util.keystr(p, simple=True, separator="/"): tuple(x.shape) for p, x in _leaves(tree)}

    found, expected = shapes(found), shapes(expected)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            stored, wanted = (tree.get(name, "absent") for tree in (found, expected))
            raise InputError(f"{where}: parameter {name} is {stored} in the checkpoint, {wanted} by the config")


def _leaves(tree):
    tree = getattr(tree, "tree", tree)  # Orbax wraps a tree's metadata
    return jax.tree_util.tree_flatten_with_path(tree)[0]
