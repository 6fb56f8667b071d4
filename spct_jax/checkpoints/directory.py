"""A model on disk: `model.json` (what it is), `tokenizer.model`, the texts of its templates, and Orbax checkpoints by step.

    DIR/model.json
    DIR/tokenizer.model
    DIR/templates/{template,single_template,meta_template,choice_template}.txt
    DIR/checkpoints/<step>/{params,opt_state,progress,digests}

Training stages write this layout. In Hugging Face's layout the templates lie in a folder of the same name. Wherever a
checkpoint is asked for, this one or a directory in Hugging Face's layout will do.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spct_jax import digests, files
from spct_jax.checkpoints import array_digests, config_json, hugging_face, steps
from spct_jax.checkpoints.kinds import ModelKind, abstract_params
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.template import load_template
from spct_jax.models.config import ModelConfig
from spct_jax.sharding import logical

COMPUTE = "compute"
"""As a dtype to load: what the model's arithmetic needs, no more, where training keeps float32."""
TEMPLATES = "templates"
"""The folder of a model's templates, in either layout."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A loaded checkpoint."""

    params: Any
    """Policy: the tree of `gemma.init`; meta RM: {"model": that tree, "head": `heads.init_score_head`}."""
    config: ModelConfig
    tokenizer: Tokenizer
    kind: ModelKind = ModelKind.POLICY
    step: int = 0
    prompt: PromptConfig | None = None
    """The templates it carries, None where it carries none."""
    digest: str = ""
    """Of its parameters, architecture, tokenizer and templates; another where any of them is."""


def describe(
    directory: str | os.PathLike,
    config: ModelConfig,
    tokenizer: Tokenizer,
    kind: ModelKind = ModelKind.POLICY,
    prompt: PromptConfig | None = None,
) -> None:
    """Writes what a reader needs beside the parameters; `prompt` are the templates that the model was trained with."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(directory / "tokenizer.model")
    card = {"kind": kind.value, "stop_ids": tokenizer.stop_ids, **dataclasses.asdict(config)}
    texts = {role: load_template(name).text.encode() for role, name in vars(prompt).items()} if prompt else {}
    card["digests"] = {
        name: digests.of_bytes(content) for name, content in {"tokenizer": tokenizer.model_proto, **texts}.items()
    }
    files.write_json(directory / "model.json", card | {"digest": digests.of_json(card)})
    if prompt is not None:
        write_templates(directory, prompt)


def write_templates(directory: pathlib.Path, prompt: PromptConfig) -> None:
    """Writes the texts of the templates beside a model, so that it carries them wherever it goes."""
    (directory / TEMPLATES).mkdir(exist_ok=True)
    for role, name in vars(prompt).items():
        files.write(directory / TEMPLATES / f"{role}.txt", load_template(name).text)


def read_templates(directory: str | os.PathLike) -> PromptConfig | None:
    """The templates that a model directory of either layout carries, as paths in it; None where it carries none.

    Raises:
      InputError: one of the four is missing or no template.
    """
    directory = pathlib.Path(directory)
    roles = [field.name for field in dataclasses.fields(PromptConfig)]
    folder = files.contained(directory, TEMPLATES)
    if any(os.path.lexists(folder / f"{role}.txt") for role in roles):
        paths = {role: files.contained(folder, f"{role}.txt").absolute() for role in roles}
        for path in paths.values():
            if not path.exists():
                raise InputError(f"{path}: missing beside the other templates of this model")
            load_template(path)
        return PromptConfig(**{role: str(path) for role, path in paths.items()})
    return None


Shardings = Callable[[Any], Any]
"""From a tree of abstract parameters to a tree of their shardings, such as `sharding.Layout.params`."""


def load(
    directory: str | os.PathLike,
    *,
    kind: ModelKind = ModelKind.POLICY,
    dtype: str | None = None,
    shardings: Shardings | None = None,
) -> Model:
    """Loads a model directory of ours (its newest intact parameters) or of Hugging Face's layout.

    Args:
      directory: the model.
      kind: what the directory must hold.
      dtype: of parameters and activations. None: as stored, but float32 for Hugging Face's files where JAX runs on CPU.
        COMPUTE: as None, but the matrices of ours in the dtype that the model computes with; see `partition.cast`.
      shardings: gives where the parameters go; each device reads its own shards only. None: all on the first device.

    Raises:
      InputError: the directory is no checkpoint, is of another kind, a leaf differs from what its description says, its bytes
        are not those that were saved, or a weight is not finite.
    """
    directory = pathlib.Path(directory).absolute()
    if not directory.is_dir():
        raise InputError(f"{directory}: no such checkpoint directory")
    is_hf = hugging_face.is_hf_directory(directory)
    found = config_json.read_config(directory / "config.json").kind if is_hf else read_card(directory)[1]
    if found is not kind:
        raise InputError(f"{directory}: holds a {found} checkpoint, not a {kind} one")
    model = _load_hf(directory, dtype, shardings) if is_hf else _load_ours(directory, dtype, shardings)
    check_finite(model.params, directory)
    return model


def save(directory: str | os.PathLike, model: Model) -> None:
    """Writes a model directory of ours, whole or not at all; InputError if it holds something already."""
    with files.new_directory(directory, sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))) as scratch:
        describe(scratch, model.config, model.tokenizer, model.kind, model.prompt)
        with steps.manager(scratch) as checkpoints:
            steps.save(checkpoints, model.step, model.params)


def read_tokenizer(directory: str | os.PathLike) -> Tokenizer:
    """The tokenizer of a model directory of either layout, with all ids the model stops at."""
    directory = pathlib.Path(directory)
    is_hf = hugging_face.is_hf_directory(directory)
    path, field = directory / ("generation_config.json" if is_hf else "model.json"), "eos_token_id" if is_hf else "stop_ids"
    if not is_hf:
        read_card(directory)
    stops = (files.read_json(path).get(field) or []) if os.path.lexists(path) else []
    stops = stops if isinstance(stops, list) else [stops]
    tokenizer = Tokenizer.load(files.contained(directory, "tokenizer.model"), ())
    for index in stops:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < tokenizer.vocab_size:
            raise InputError(f"{path}: {field} holds {index!r}, no id of the tokenizer's {tokenizer.vocab_size} pieces")
    if not is_hf:
        _check_digest(directory, "tokenizer", "tokenizer.model", tokenizer.model_proto)
    return Tokenizer(tokenizer.model_proto, stops)


def _check_digest(directory: pathlib.Path, field: str, name: str, content: bytes) -> None:
    """InputError where a file beside `model.json` is not the one that it was written with, as far as it says."""
    recorded = files.read_json(directory / "model.json").get("digests", {}).get(field)
    if recorded not in (None, digests.of_bytes(content)):
        raise InputError(f"{directory / name}: was altered since model.json was written (its digest is another)")


def _load_hf(directory: pathlib.Path, dtype: str | None, shardings: Shardings | None) -> Model:
    dtype = None if dtype == COMPUTE else dtype
    if dtype is None and jax.default_backend() == "cpu":
        dtype = "float32"
    tokenizer = read_tokenizer(directory)
    where = None
    if shardings is not None:
        where = shardings(abstract_params(*config_json.read_config(directory / "config.json")[:2]))
    params, config, kind = hugging_face.read_weights(directory, dtype=dtype, num_tokens=tokenizer.vocab_size, shardings=where)
    prompt = read_templates(directory)
    digest = _digest(array_digests.of_tree(params), config, tokenizer, prompt)
    return Model(params, config, tokenizer, kind, 0, prompt, digest)


def _load_ours(directory: pathlib.Path, dtype: str | None, shardings: Shardings | None) -> Model:
    config, kind = read_card(directory)
    if not (directory / "checkpoints").is_dir():
        raise InputError(f"{directory}: not a checkpoint (it has no 'checkpoints' folder)")
    expected = abstract_params(config, kind)
    # Not the devices it was written from, which may be others or more than there are here.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    where = jax.tree.map(lambda _: here, expected) if shardings is None else shardings(expected)
    target = jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), expected, where)

    def cast(params):
        if dtype == COMPUTE:
            return logical.cast(params, config.dtype)
        return jax.tree.map(lambda leaf: leaf.astype(dtype or leaf.dtype), params)

    stored = steps.read_newest(directory, {"params": target}, cast)
    if stored is None:
        raise InputError(f"{directory}: not a checkpoint ('checkpoints' holds no finished step)")
    tokenizer, prompt = read_tokenizer(directory), read_templates(directory)
    for role, path in vars(prompt).items() if prompt else ():
        _check_digest(directory, role, f"{TEMPLATES}/{role}.txt", load_template(path).text.encode())
    digest = _digest(stored.digests["params"], config, tokenizer, prompt)
    config = config if dtype in (None, COMPUTE) else dataclasses.replace(config, dtype=dtype)
    return Model(cast(stored.trees["params"]), config, tokenizer, kind, stored.step, prompt, digest)


def _digest(params: Any, config: ModelConfig, tokenizer: Tokenizer, prompt: PromptConfig | None) -> str:
    """Of a model, from the digests of its parameters; the dtype that it is loaded in does not count."""
    params = {name: leaf.get("bfloat16") or leaf[leaf["dtype"]] for name, leaf in params.items()}
    config = dataclasses.replace(config, dtype="bfloat16")
    texts = [load_template(path).text for path in vars(prompt).values()] if prompt else []
    proto = digests.of_bytes(tokenizer.model_proto)
    return digests.of_json([params, dataclasses.asdict(config), proto, tokenizer.stop_ids, texts])


def read_architecture(directory: str | os.PathLike) -> ModelConfig:
    """The architecture of a model directory of either layout, without its parameters; InputError if it is neither."""
    if hugging_face.is_hf_directory(directory):
        return config_json.read_config(pathlib.Path(directory) / "config.json").config
    return read_card(directory)[0]


def read_card(directory: str | os.PathLike) -> tuple[ModelConfig, ModelKind]:
    """(the architecture, the kind) that a model directory of ours states."""
    path = pathlib.Path(directory) / "model.json"
    if not path.is_file():
        raise InputError(f"{directory}: not a checkpoint (it has no model.json, nor Hugging Face's config.json and weights)")
    card = files.read_json(path)
    digest = card.pop("digest", None)
    if digest is not None and digest != digests.of_json(card):
        raise InputError(f"{path}: was altered since it was written (its digest is another)")
    kinds = {kind.value: kind for kind in ModelKind}
    if not isinstance(word := card.pop("kind", None), str) or word not in kinds:
        raise InputError(f"{path}: kind is {word!r}, none of {', '.join(kinds)}")
    if not isinstance(card.get("digests", {}), dict):
        raise InputError(f"{path}: digests are no object")
    try:
        for extra in ("stop_ids", "digests"):
            card.pop(extra, None)
        config = ModelConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in card.items()})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a model description ({error})") from None
    return config, kinds[word]


def check_finite(params: Any, where: str | os.PathLike) -> None:
    """Raises InputError naming `where` and the first parameter that holds NaN or an infinite number."""
    if name := first_not_finite(params):
        raise InputError(f"weights of {where} hold NaN or infinite numbers (in {name})")


def first_not_finite(tree: Any) -> str | None:
    """The name of the first array of a tree, on the devices, that holds NaN or an infinite number; None where none does."""
    finite = np.asarray(_finite(jax.tree.leaves(tree)))
    return None if finite.all() else array_digests.named_leaves(tree)[int(np.argmin(finite))][0]


@jax.jit
def _finite(leaves: list[jax.Array]) -> jax.Array:
    """Bool[number of leaves]: whether all numbers of each are finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves])
