"""The files that a configuration names, from where the run finds them."""

import dataclasses

from spct_jax import files
from spct_jax.config import Config
from spct_jax.grm import prompts

DATA = ("train", "development", "test", "demonstrations", "general", "tokenizer")
"""Fields of `config.data` that name files."""


def absolute(config: Config) -> Config:
    """The configuration with every path in it absolute, so that what is found once is found again.

    Raises:
      InputError: one of them is a URL.
    """

    def full(field: str, path: str) -> str:
        return str(files.local_path(path, f"--config.{field}")) if path else path

    data = {name: full(f"data.{name}", getattr(config.data, name)) for name in DATA}
    templates = {
        role: name if name in prompts.template_names() else full(f"prompt.{role}", name)
        for role, name in vars(config.prompt).items()
    }
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, **data),
        prompt=dataclasses.replace(config.prompt, **templates),
        init_checkpoint=full("init_checkpoint", config.init_checkpoint),
    )
