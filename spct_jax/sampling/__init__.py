"""Drawing completions from the decoder."""

from spct_jax.sampling.engine import Engine, Finished, Request, Usage
from spct_jax.sampling.engine_shape import Shape
from spct_jax.sampling.generate import generate
from spct_jax.sampling.kernel import Completions
from spct_jax.sampling.params import SamplingParams

__all__ = ["Completions", "Engine", "Finished", "Request", "SamplingParams", "Shape", "Usage", "generate"]
