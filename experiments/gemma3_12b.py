"""SPCT on Gemma-3 12B with the paper's settings, laid out for v6e:8x8.

What: all stages from a pretrained checkpoint; prompt 4,096, completion 1,024, groups of 4.
Hardware: one slice v6e:8x8 (64 chips, 16 hosts; GKE ct6e-standard-4t; TPU VM v6e-64).
Plan: at most 13.03 of 31.25 GiB per chip, 11.30 in the GRPO update; a step of RL takes at least 15.7 s,
the paper's schedule at least 602 chip-hours. At the lengths of real data, by the compiler's estimates, 9.5 s and 403
chip-hours (docs/results/speed.md).

    python -m spct_jax.plan --config=experiments/gemma3_12b.py --topology=v6e:8x8
    python -m spct_jax.train --config=experiments/gemma3_12b.py --workdir=DIR --config.init_checkpoint=CHECKPOINT
"""

from spct_jax import config as config_lib
from spct_jax.models import sizes


def get_config(system: str = "") -> config_lib.Config:
    """The experiment, or a baseline of it: `config.SYSTEMS`."""
    config = config_lib.paper(sizes.get("gemma3_12b"))
    config.mesh = config_lib.MeshConfig(strategy="fsdp_tensor", tensor=4, rollout="tensor")
    config.rl.accumulate, config.meta_rm.accumulate = 8, 11
    config.rft.accumulate = 8 * config.rl.accumulate
    config.sft.accumulate = 2 * config.rl.accumulate
    return config_lib.as_system(config, system)
