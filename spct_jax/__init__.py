"""Self-Principled Critique Tuning for JAX and TPU."""

from spct_jax.data.comparison import Comparison, Turn

__all__ = ["Comparison", "Turn"]
