"""The tiny experiment: all of SPCT from nothing, on a procedural world, on two CPU cores in minutes.

    python -m spct_jax.train --workdir=runs/tiny                                         # the default is this experiment
    python -m spct_jax.train --workdir=runs/tiny_no_kl --config=experiments/tiny.py:no_kl  # an ablation
    python -m spct_jax.train --workdir=runs/tiny_btrm --config=experiments/tiny.py:btrm    # a baseline

Baselines, the rows of the paper's Table 2: `grm` (no meta RM), `rft_only`, `no_principles` (verdicts without a part that names
criteria), `llm_judge`, `btrm`, `pairrm`, `cloud`. Ablations, one flag each: `no_rejection` (cold start, then RL),
`no_hint` (rejection sampling without hinted draws), `no_kl` (beta 0), `drop_solved` (RL of two thirds of the steps, without
what the cold start solves; rejection sampling then draws on all training comparisons, as in `all_drawn`, to compare with),
`meta_draws` (the meta RM learns from draws of the final policy instead of RL's rollouts).
What to expect: docs/results/tiny.md.
"""

from spct_jax import config as config_lib
from spct_jax.errors import InputError


def _no_rejection(config):
    config.stages = tuple(s for s in config.stages if s not in ("rejection", "rft"))


def _no_hint(config):
    config.rejection.hinted = False


def _all_drawn(config):
    config.rejection.problems = 0


def _drop_solved(config):
    _all_drawn(config)
    config.rl.drop_solved = True
    config.rl.steps = 16


def _meta_draws(config):
    config.meta_rm.policy_data = "draws"


def _no_kl(config):
    config.rl.kl_beta = 0.0


ABLATIONS = {
    "no_rejection": _no_rejection,
    "no_hint": _no_hint,
    "no_kl": _no_kl,
    "all_drawn": _all_drawn,
    "drop_solved": _drop_solved,
    "meta_draws": _meta_draws,
}


def get_config(ablation: str = "") -> config_lib.Config:
    """The tiny experiment, one ablation of it, or a baseline."""
    config = config_lib.tiny()
    if ablation and ablation not in ABLATIONS | config_lib.SYSTEMS:
        raise InputError(f"unknown ablation {ablation!r}; known: {', '.join((*ABLATIONS, *config_lib.SYSTEMS))}")
    if ablation in ABLATIONS:
        ABLATIONS[ablation](config)
        return config
    return config_lib.as_system(config, ablation)
