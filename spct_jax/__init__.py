"""Self-Principled Critique Tuning for JAX and TPU."""

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.evaluation.judging import Judge
from spct_jax.evaluation.verdicts import Sample, Verdict

__all__ = ["Comparison", "Judge", "Sample", "Turn", "Verdict"]
