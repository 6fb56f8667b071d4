"""Whether the devices divide the batches of an experiment."""

from spct_jax.config import Config
from spct_jax.sharding import Layout


def check_batches(config: Config, layout: Layout) -> None:
    """Raises InputError naming the first batch size that the devices do not divide."""
    for stage in ("sft", "rejection", "rft", "rl", "meta_rm"):
        if stage in config.stages:
            chosen = getattr(config, stage)
            layout.check_rows(chosen.batch_size // getattr(chosen, "accumulate", 1), f"config.{stage}.batch_size: a batch")
    if "rl" in config.stages:
        layout.check_rows(config.rl.batch_size // config.rl.rollout_parts, "config.rl.rollout_parts: a part")
