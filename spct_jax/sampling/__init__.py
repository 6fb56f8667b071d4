"""Drawing completions from the decoder."""

from spct_jax.sampling.engine import Engine, Finished, Request, Usage
from spct_jax.sampling.generate import bucket_of, generate
from spct_jax.sampling.kernel import Completions
from spct_jax.sampling.params import SamplingParams
from spct_jax.sampling.shape import Shape

__all__ = ["Completions", "Engine", "Finished", "Request", "SamplingParams", "Shape", "Usage", "bucket_of", "generate"]
