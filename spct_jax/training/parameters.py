"""Where a stage finds parameters: initial ones, those that an earlier stage left, and those that completions are drawn with."""

import dataclasses
from typing import Any

import jax
import numpy as np

from spct_jax import checkpoints, models, sharding
from spct_jax.checkpoints import ModelKind
from spct_jax.config import BASELINES, POLICIES, Config
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.errors import InputError
from spct_jax.models import heads
from spct_jax.models.config import ModelConfig
from spct_jax.runtime import distributed
from spct_jax.sampling import engine_params
from spct_jax.storage import files
from spct_jax.training.context import Run


class LostStepsError(Exception):
    """The last steps of a finished stage are damaged; an earlier one is intact."""

    def __init__(self, stage: str, step: int):
        super().__init__(f"{stage}: the newest intact checkpoint is {step}")
        self.stage = stage


def kind_of(stage: str) -> ModelKind:
    """The kind of model that a stage trains."""
    return ModelKind(stage) if stage in ("meta_rm", *BASELINES) else ModelKind.POLICY


_SIZES = ("num_layers", "width", "num_heads", "num_kv_heads", "head_dim", "ffw_width")
"""Fields of a model that say how large it is."""


def architecture(config: Config, tokenizer: Tokenizer) -> ModelConfig:
    """A run's model: that of the initial checkpoint, or the config's with as many embedding rows as the tokenizer has pieces.

    Says how a checkpoint's is of another size than the config's.

    Raises:
      InputError: the tokenizer has more pieces than the initial checkpoint has embedding rows.
    """
    if not config.init_checkpoint:
        return dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size)
    found = checkpoints.read_architecture(config.init_checkpoint)
    sizes = [(name, getattr(found, name), getattr(config.model, name)) for name in _SIZES]
    if other := [f"{name} {size}, not {named}" for name, size, named in sizes if size != named]:
        distributed.say(f"the model is that of {config.init_checkpoint}, not of the size of config.model: {'; '.join(other)}")
    return dataclasses.replace(
        found,
        num_tokens=tokenizer.vocab_size if tokenizer.vocab_size != found.vocab_size else 0,
        dtype=config.model.dtype,
        remat=config.model.remat,
        time_chunk=config.model.time_chunk,
        attention=config.model.attention,
        quantize=config.model.quantize,
    )


def initial(run: Run) -> Any:
    """Float32 parameters that the first training stage starts from."""
    if run.config.init_checkpoint:
        how = {"shardings": run.layout.params, "tokenizer": run.config.data.tokenizer}
        model = checkpoints.load(run.config.init_checkpoint, dtype="float32", **how)
        _check_initial(run, model.digest)
        return model.params

    def init(data):
        return models.init(run.model, jax.random.wrap_key_data(data))

    data = np.asarray(jax.random.key_data(run.key("init")))
    return jax.jit(init, out_shardings=run.layout.params(jax.eval_shape(init, data)))(data)


def _check_initial(run: Run, digest: str) -> None:
    """Raises InputError if the initial checkpoint is not the one that the run has loaded before."""
    path = run.workdir / "data" / "init_checkpoint.json"
    if distributed.agree(path.exists()) and files.read_json(path).get("digest") != digest:
        raise InputError(
            f"config.init_checkpoint: {run.config.init_checkpoint} is not the model that this run began with; "
            "choose another --workdir"
        )
    files.write_json(path, {"digest": digest})


def trained_by(run: Run, stage: str, dtype: str | None = None) -> Any:
    """Parameters that a finished stage left, in the layout of updates and by default in the stored dtype.

    Raises:
      LostStepsError: the last checkpoint is damaged, an earlier one is intact.
    """
    model = checkpoints.load(run.workdir / stage, kind=kind_of(stage), dtype=dtype, shardings=run.layout.params)
    if model.step < getattr(run.config, stage).steps:
        raise LostStepsError(stage, model.step)
    return model.params


def policy_before(run: Run, stage: str, dtype: str = "float32") -> Any:
    """The policy's parameters when a stage begins: those of the last stage before it that trains a policy, or initial ones.

    The large ones have this dtype, all others are float32: norms keep the policy's values, so that the reference of a policy
    that computes in it equals that policy bit for bit.
    """
    earlier = [s for s in run.config.stages[: run.config.stages.index(stage)] if s in POLICIES]
    params = trained_by(run, earlier[-1], "float32") if earlier else initial(run)
    return params if dtype == "float32" else sharding.cast_params(params, dtype, run.layout)


def with_score_head(run: Run, stage: str) -> dict[str, Any]:
    """What a scalar model starts from: the policy before the stage, and a new head."""
    head = heads.init_score_head(run.model, run.key(stage))
    return {"model": policy_before(run, stage), "head": distributed.put(head, run.layout.params(head))}


def for_sampling(run: Run, params: Any) -> Any:
    """A policy's parameters as engines read them, converted from those of updates; `sampling_model` is their architecture."""
    return engine_params.decode_params(params, run.model, run.rollout_layout)


def sampling_model(run: Run) -> ModelConfig:
    """The architecture that parameters from `for_sampling` belong to."""
    return engine_params.decode_model(run.rollout_layout, run.model)[1]


def for_scoring(run: Run, params: Any) -> Any:
    """Parameters of a model with a head to score completions with, converted from those of updates."""
    params = sharding.cast_params(params, run.model.dtype, run.rollout_layout)
    return engine_params.reformat(params, run.rollout_layout)


def describe(run: Run, stage: str) -> None:
    """Makes the stage's directory a model directory."""
    if distributed.is_first():
        tokenizer = run.prompter.tokenizer
        checkpoints.describe(run.workdir / stage, run.model, tokenizer, kind_of(stage), run.config.prompt)
