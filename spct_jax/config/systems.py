"""The rows of the paper's Table 2: each is an experiment with other stages, templates or data."""

from collections.abc import Callable

from spct_jax.config.schema import Config
from spct_jax.errors import InputError
from spct_jax.field_bounds import MOST

_WITHOUT_PRINCIPLES = {
    "template": {"": "short_no_principles", "short": "short_no_principles", "default": "no_principles"},
    "single_template": {
        "": "short_single_no_principles",
        "short_single": "short_single_no_principles",
        "single": "single_no_principles",
    },
}
"""By role, the package's templates that ask for principles, and their forms that do not; a name may be empty."""


def _grm(config: Config) -> None:
    config.stages = ("sft", "rejection", "rft", "rl", "evaluate")


def _rft_only(config: Config) -> None:
    config.stages = ("sft", "rejection", "rft", "evaluate")


def _no_principles(config: Config) -> None:
    for role, forms in _WITHOUT_PRINCIPLES.items():
        if (own := getattr(config.prompt, role)) not in forms:
            raise InputError(
                f"config.prompt.{role}: no_principles knows no form of {own!r}; instead of choosing this system, name a "
                "template without principles there"
            )
        setattr(config.prompt, role, forms[own])


def _llm_judge(config: Config) -> None:
    _grm(config)
    config.prompt.template = config.prompt.choice_template = config.prompt.choice_template or "short_judge"
    # Pairs alone in the paper; the toy world's test has up to four responses in a prompt.
    config.data.responses = (2, MOST if config.data.is_toy else 2)


def _btrm(config: Config) -> None:
    config.stages = ("sft", "btrm", "evaluate")
    _accumulate_as_rl(config)


def _pairrm(config: Config) -> None:
    config.stages = ("sft", "pairrm", "evaluate")
    _accumulate_as_rl(config)


def _cloud(config: Config) -> None:
    config.stages = ("sft", "cloud", "evaluate")
    config.data.toy.demonstration_mix = (0.0, 1.0, 0.0)  # critiques of single responses alone
    _accumulate_as_rl(config)


SYSTEMS: dict[str, Callable[[Config], None]] = {
    "grm": _grm,
    "rft_only": _rft_only,
    "no_principles": _no_principles,
    "llm_judge": _llm_judge,
    "btrm": _btrm,
    "pairrm": _pairrm,
    "cloud": _cloud,
}
"""`grm`: the GRM after RL, without a meta RM. `rft_only`: without RL, too. `no_principles`: verdicts without principles, and a
meta RM. `llm_judge`: names the best response instead of scoring all, by RFT and RL. `btrm`, `pairrm`: scalar reward models that
start from the same cold start. `cloud`: a critic of single responses, and a second model that scores by its critiques."""


def as_system(config: Config, name: str) -> Config:
    """The experiment as one of `SYSTEMS`, which it becomes in place; as it is where `name` is empty.

    Raises:
      InputError: there is no such system, or the experiment has templates of its own and `no_principles` is asked for.
    """
    if name:
        if name not in SYSTEMS:
            raise InputError(f"unknown system {name!r}; known: {', '.join(SYSTEMS)}")
        SYSTEMS[name](config)
    return config


def _accumulate_as_rl(config: Config) -> None:
    """As many rows in a micro-batch as RL has."""
    for stage in (config.btrm, config.pairrm, config.cloud):
        stage.accumulate = max(stage.batch_size * config.rl.accumulate // config.rl.batch_size, 1)
