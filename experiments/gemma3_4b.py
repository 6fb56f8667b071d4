"""SPCT on Gemma-3 4B with the paper's settings, laid out for v5e:4x4.

What: all stages from a pretrained checkpoint; prompt 4,096, completion 1,024, groups of 4.
Hardware: one slice v5e:4x4 (16 chips, 4 hosts; GKE ct5lp-hightpu-4t; TPU VM v5litepod-16).
Plan: at most 12.05 of 15.75 GiB per chip, 9.79 in the GRPO update; a step of RL takes at least 32.6 s,
the paper's schedule at least 363 chip-hours. At the lengths of real data, by the compiler's estimates, 16.2 s and 152
chip-hours (docs/results/speed.md).

    python -m spct_jax.plan --config=experiments/gemma3_4b.py --topology=v5e:4x4
    python -m spct_jax.train --config=experiments/gemma3_4b.py --workdir=DIR --config.init_checkpoint=CHECKPOINT
"""

from spct_jax import config as config_lib
from spct_jax.models import sizes


def get_config(system: str = "") -> config_lib.Config:
    """The experiment, or a baseline of it: `config.SYSTEMS`."""
    config = config_lib.paper(sizes.get("gemma3_4b"))
    # Updates split rows and parameters over all chips; a copy for each chip would leave draws no room for caches.
    config.mesh = config_lib.MeshConfig(strategy="fsdp", tensor=4, rollout="tensor")
    config.rl.accumulate, config.meta_rm.accumulate = 8, 11
    config.rft.accumulate = 8 * config.rl.accumulate
    config.sft.accumulate = 2 * config.rl.accumulate
    return config_lib.as_system(config, system)
