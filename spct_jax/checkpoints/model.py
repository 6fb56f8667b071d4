"""A loaded checkpoint."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from spct_jax.checkpoints.model_kind import ModelKind
from spct_jax.data.tokenizer import Tokenizer
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.template import load_template
from spct_jax.models.config import ModelConfig
from spct_jax.storage import digests

COMPUTE = "compute"
"""As a dtype to load: what the model's arithmetic needs and no more, even where training keeps float32."""

Shardings = Callable[[Any], Any]
"""From a tree of abstract parameters to a tree of their shardings, such as `sharding.Layout.params`."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A loaded checkpoint."""

    params: Any
    """As `kind` says."""
    config: ModelConfig
    tokenizer: Tokenizer
    kind: ModelKind = ModelKind.POLICY
    step: int = 0
    prompt: PromptConfig | None = None
    """The templates that it carries, None where it carries none."""
    digest: str = ""
    """Of its parameters, architecture, tokenizer and templates: if one of them is another, so is this."""


def digest_of(
    arrays: Mapping[str, Mapping[str, Any]], config: ModelConfig, tokenizer: Tokenizer, prompt: PromptConfig | None
) -> str:
    """The digest of a model, whatever the dtype that it is loaded in.

    Args:
      arrays: of its parameters, see `array_digests.of_tree`.
      config: the architecture.
      tokenizer: its tokenizer.
      prompt: its templates.
    """
    bits = {name: leaf.get("bfloat16") or leaf[leaf["dtype"]] for name, leaf in arrays.items()}
    config = dataclasses.replace(config, dtype="bfloat16")
    texts = [load_template(path).text for path in vars(prompt).values()] if prompt else []
    proto = digests.of_bytes(tokenizer.description)
    return digests.of_json([bits, config.stored(), proto, tokenizer.stop_ids, texts])
