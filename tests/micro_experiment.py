"""The tiny experiment made so small that a test can run all of it."""

from spct_jax import config as config_lib


def make_config():
    """Every stage of the tiny experiment with next to no work in it."""
    config = config_lib.tiny()
    config.model.num_layers = 1  # most of the time goes into compiling, layer by layer
    config.data.toy = config_lib.ToyConfig(train=48, development=16, test=24, demonstrations=64, general=16)
    config.sft.steps = 2
    config.sft.batch_size = 8
    config.rejection.problems = 24
    config.rejection.batch_size = 16
    config.rft.steps = 2
    config.rft.batch_size = 8
    config.rl.steps = 2
    config.rl.batch_size = 8
    config.meta_rm.steps = 2
    config.meta_rm.batch_size = 8
    config.btrm.steps = config.pairrm.steps = 2
    config.btrm.batch_size = config.pairrm.batch_size = config.cloud.batch_size = 8
    config.cloud.steps = 2
    config.cloud.problems = config.cloud.draw_batch_size = 16
    config.evaluation.problems = 10
    config.evaluation.k = (1, 4)
    config.evaluation.buckets = ()
    config.evaluation.compare_temperatures = ()
    config.evaluation.slots = 32
    config.checkpoint.every_steps = 1
    return config
