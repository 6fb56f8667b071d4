"""SPCT on Gemma-3 1B with the paper's settings, laid out for v5e:2x2.

What: all stages from a pretrained checkpoint; prompt 4,096, completion 1,024, groups of 4.
Hardware: one slice v5e:2x2 (4 chips, 1 host; GKE ct5lp-hightpu-4t; TPU VM v5litepod-4).
Plan: at most 8.88 of 15.75 GiB per chip, 6.55 in the GRPO update; a step of RL takes at least 27.7 s,
the paper's schedule at least 81 chip-hours. At the lengths of real data, by the compiler's estimates, 15.0 s and 39
chip-hours (docs/results/speed.md).

    python -m spct_jax.plan --config=experiments/gemma3_1b.py --topology=v5e:2x2
    python -m spct_jax.train --config=experiments/gemma3_1b.py --workdir=DIR --config.init_checkpoint=CHECKPOINT
"""

from spct_jax import config as config_lib
from spct_jax.models import sizes


def get_config(system: str = "") -> config_lib.Config:
    """The experiment, or a baseline of it: `config.SYSTEMS`."""
    config = config_lib.paper(sizes.get("gemma3_1b"))
    config.mesh = config_lib.MeshConfig(strategy="fsdp", tensor=1, rollout="tensor")
    config.rl.accumulate, config.meta_rm.accumulate = 32, 44
    config.rft.accumulate = 8 * config.rl.accumulate
    config.sft.accumulate = 2 * config.rl.accumulate
    return config_lib.as_system(config, system)
