"""SPCT on Gemma-3 27B with the paper's settings, laid out for v5p:4x4x4.

What: all stages from a pretrained checkpoint; prompt 4,096, completion 1,024, groups of 4.
Hardware: one slice v5p:4x4x4 (64 chips, 16 hosts; GKE ct5p-hightpu-4t; TPU VM v5p-128).
Plan: at most 25.22 of 95.74 GiB per chip, 20.80 in the GRPO update; a step of RL takes at least 21.9 s,
the paper's schedule at least 1,096 chip-hours. At the lengths of real data, by the compiler's estimates, 24.8 s and 734
chip-hours (docs/results/speed.md).

    python -m spct_jax.plan --config=experiments/gemma3_27b.py --topology=v5p:4x4x4
    python -m spct_jax.train --config=experiments/gemma3_27b.py --workdir=DIR --config.init_checkpoint=CHECKPOINT
"""

from spct_jax import config as config_lib
from spct_jax.models import sizes


def get_config(system: str = "") -> config_lib.Config:
    """The experiment, or a baseline of it: `config.SYSTEMS`."""
    config = config_lib.paper(sizes.get("gemma3_27b"))
    config.mesh = config_lib.MeshConfig(strategy="fsdp_tensor", tensor=4, rollout="tensor")
    config.rl.accumulate, config.meta_rm.accumulate = 8, 11
    config.rft.accumulate = 8 * config.rl.accumulate
    config.sft.accumulate = 2 * config.rl.accumulate
    return config_lib.as_system(config, system)
