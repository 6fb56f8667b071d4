"""Drawing completions from the decoder."""

from spct_jax.sampling.generate import Completions, branch_keys, bucket_of, draw, generate

__all__ = ["Completions", "branch_keys", "bucket_of", "draw", "generate"]
