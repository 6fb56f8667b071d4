"""The tiny experiment made so small that it can be run again and again: little to do in every stage, and many checkpoints."""

from spct_jax import config as config_lib


def get_config() -> config_lib.Config:
    """A few minutes on two cores. The cold start is too short for RFT and a meta RM, which need verdicts that are right."""
    config = config_lib.tiny()
    config.stages = ("sft", "rejection", "rl", "evaluate")
    config.data.toy = config_lib.ToyConfig(train=48, development=16, test=24, demonstrations=64, general=16)
    for stage, steps in (("sft", 160), ("rl", 48)):
        getattr(config, stage).steps, getattr(config, stage).batch_size = steps, 8
    config.rejection.problems, config.rejection.batch_size = 24, 16
    config.evaluation.problems, config.evaluation.slots, config.evaluation.k = 16, 32, (1, 4)
    config.evaluation.buckets = config.evaluation.compare_temperatures = ()
    config.checkpoint.every_steps = 2
    return config
