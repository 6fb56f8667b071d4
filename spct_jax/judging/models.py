"""The models of a judge, on the devices: a policy that writes critiques, and perhaps a meta reward model that rates them."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from spct_jax import checkpoints
from spct_jax.grm.config import DEFAULT_PROMPT, PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.models.config import ModelConfig
from spct_jax.sampling import engine_params
from spct_jax.sharding import Layout
from spct_jax.storage import digests


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A model and how it is spoken to."""

    params: Any
    """Its parameters; of a meta RM {"model": ..., "head": ...}. In the layout of `Models` and the dtype of its arithmetic. On a
    TPU every engine copies what `engine_params.reformat` would lay out otherwise, and those copies are not counted."""
    config: ModelConfig
    prompter: Prompter


@dataclasses.dataclass(frozen=True, eq=False)
class Models:
    """What a judge is made of."""

    layout: Layout
    """How parameters and rows are split over the devices."""
    policy: Model
    meta: Model | None = None
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What was loaded, each under the name of the flag that names it; a digest changes when the content does."""
    knows_templates: bool = True
    """Whether the policy's templates came with its checkpoint or were asked for, and are not just the default ones."""


def with_names(carried: PromptConfig | None, asked: PromptConfig | None) -> PromptConfig:
    """The templates of a model: those asked for by name, else those that its checkpoint carries, else the default ones."""
    names = {role: name for role, name in vars(asked).items() if name} if asked else {}
    return dataclasses.replace(carried or DEFAULT_PROMPT, **names)


def load(
    checkpoint: str | os.PathLike,
    meta_checkpoint: str | os.PathLike | None,
    layout: Layout,
    prompt: PromptConfig | None = None,
    quantize: str = "none",
) -> Models:
    """Loads the models of a judge; see `Judge.load`.

    Raises:
      InputError: a directory is not such a checkpoint.
    """

    def read(directory: str | os.PathLike, kind: checkpoints.ModelKind) -> checkpoints.Model:
        return checkpoints.load(directory, kind=kind, dtype=checkpoints.COMPUTE, shardings=layout.params)

    def prompter_of(found: checkpoints.Model) -> Prompter:
        return Prompter(with_names(found.prompt, prompt), found.tokenizer)

    meta = read(meta_checkpoint, checkpoints.ModelKind.META_RM) if meta_checkpoint else None
    policy = read(checkpoint, checkpoints.ModelKind.POLICY)
    drawn = dataclasses.replace(policy.config, quantize=quantize)
    models = Models(
        layout,
        Model(*engine_params.adopt(policy.params, drawn, layout), prompter_of(policy)),
        Model(engine_params.reformat(meta.params, layout, delete=True), meta.config, prompter_of(meta)) if meta else None,
        knows_templates=policy.prompt is not None or bool(prompt and prompt.template),
    )
    found = {"checkpoint": policy.digest, "template": models.policy.prompter.texts_digest}
    if meta:
        found["meta_checkpoint"] = meta.digest
        if prompt and prompt.meta_template:
            found["meta_template"] = digests.of_json(models.meta.prompter.meta.text)
    return dataclasses.replace(models, digests=found)
