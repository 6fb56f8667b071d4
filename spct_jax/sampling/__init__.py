"""Drawing completions from the decoder."""

from spct_jax.sampling.generate import Completions, branch_keys, draw, generate

__all__ = ["Completions", "branch_keys", "draw", "generate"]
