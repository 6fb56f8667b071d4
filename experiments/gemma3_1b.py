"""SPCT on Gemma-3 1B with the paper's settings, laid out for v5e:2x2.

What: all stages from a pretrained checkpoint; prompt 4,096, completion 1,024, groups of 4.
Hardware: one slice v5e:2x2 (4 chips, 1 host; GKE ct5lp-hightpu-4t; TPU VM v5litepod-4).
Plan: at most 12.74 of 15.75 GiB per chip, 8.44 in the GRPO update; a step of RL takes at least 27.2 s,
the paper's schedule at least 126 chip-hours.
Times counted before docs/plan.md's correction of bytes moved: memory binds here, so they are too high.
RFT and meta RM not planned again since a batch counts examples.
Draws not planned again since slots refill, docs/training.md.

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
