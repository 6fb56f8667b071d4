"""The tiny experiment made so small that it can be run again and again: little to do in every stage, and many checkpoints."""

from spct_jax import config as config_lib


def get_config() -> config_lib.Config:
    """Minutes on two cores. RFT and the meta RM need verdicts that are right: set `init_checkpoint` to a cold start."""
    config = config_lib.tiny()
    config.data.toy = config_lib.ToyConfig(train=48, development=16, test=24, demonstrations=64, general=16)
    for stage in ("sft", "rft", "rl", "meta_rm"):
        getattr(config, stage).steps, getattr(config, stage).batch_size = 10, 8
    config.rejection.problems, config.rejection.batch_size = 32, 8
    config.evaluation.problems, config.evaluation.slots, config.evaluation.k = 24, 32, (1, 4)
    config.evaluation.buckets = config.evaluation.compare_temperatures = ()
    config.checkpoint.every_steps = 2
    return config
