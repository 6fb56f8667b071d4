"""SPCT on Gemma-2 9B with the paper's settings, laid out for v6e:4x4.

What: all stages from a pretrained checkpoint; prompt 4,096, completion 1,024, groups of 4.
Hardware: one slice v6e:4x4 (16 chips, 4 hosts; GKE ct6e-standard-4t; TPU VM v6e-16).
Plan: at most 22.59 of 31.25 GiB per chip, 17.20 in the GRPO update; a step of RL takes at least 43.3 s,
the paper's schedule at least 339 chip-hours. At the lengths of real data, by the compiler's estimates, 18.2 s and 143
chip-hours (docs/results/speed.md).

    python -m spct_jax.plan --config=experiments/gemma2_9b.py --topology=v6e:4x4
    python -m spct_jax.train --config=experiments/gemma2_9b.py --workdir=DIR --config.init_checkpoint=CHECKPOINT
"""

from spct_jax import config as config_lib
from spct_jax.models import sizes


def get_config(system: str = "") -> config_lib.Config:
    """The experiment, or a baseline of it: `config.SYSTEMS`."""
    config = config_lib.paper(sizes.get("gemma2_9b"))
    # Updates split rows and parameters over all chips; a copy for each chip would leave draws no room for caches.
    config.mesh = config_lib.MeshConfig(strategy="fsdp", tensor=4, rollout="tensor")
    config.rl.accumulate, config.meta_rm.accumulate = 8, 11
    config.rft.accumulate = 8 * config.rl.accumulate
    config.sft.accumulate = 2 * config.rl.accumulate
    return config_lib.as_system(config, system)
