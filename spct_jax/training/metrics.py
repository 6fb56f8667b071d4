"""Metrics of a step: small trees of arrays with methods to merge two micro-batches' and to compute the final number."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num


@flax.struct.dataclass
class Mean:
    """A mean, kept as a sum and a count that are divided only once, at the end."""

    total: Num[ArrayLike, ""]
    count: Num[ArrayLike, ""]
    in_summary: bool = flax.struct.field(pytree_node=False, default=False)
    """Whether the stage's summary includes the mean over all steps."""

    def merge(self, other: "Mean") -> "Mean":
        """The mean over both."""
        return self.replace(total=self.total + other.total, count=self.count + other.count)

    def compute(self) -> float:
        """The mean; 0 if nothing was counted."""
        return float(self.total) / float(self.count) if self.count else 0.0


@flax.struct.dataclass
class Max:
    """The largest value."""

    value: Float[ArrayLike, ""]

    def merge(self, other: "Max") -> "Max":
        """The larger of both."""
        return Max(jnp.maximum(self.value, other.value))

    def compute(self) -> float:
        """The value."""
        return float(self.value)


EDGES = np.exp(np.arange(-64, 194) / 100)
"""Upper edges of a percentile's histogram: one per cent apart, from 0.53 to 6.9."""


@flax.struct.dataclass
class Percentile:
    """A percentile of positive values, to one per cent: the first of `EDGES` that `percent` % of the values do not exceed."""

    histogram: Float[Array, " edges"]
    """For each edge, how many values are above the previous edge and at most this one; the end edges count those outside."""
    percent: int = flax.struct.field(pytree_node=False)

    @classmethod
    def of_exp(cls, logs: Float[Array, "*shape"], mask: Float[Array, "*shape"], percent: int) -> "Percentile":
        """The percentile of exp(`logs`) where `mask` is 1."""
        bins = jnp.clip(jnp.ceil(logs * 100) + 64, 0, len(EDGES) - 1).astype(jnp.int32)  # infinite ones in the last
        return cls(jnp.zeros(len(EDGES)).at[bins.ravel()].add(mask.ravel()), percent)

    def merge(self, other: "Percentile") -> "Percentile":
        """The percentile over both."""
        return self.replace(histogram=self.histogram + other.histogram)

    def compute(self) -> float:
        """The edge, at most 1 % above the percentile; 0 if nothing was counted."""
        below = np.cumsum(np.asarray(self.histogram), dtype=np.float64)
        return float(EDGES[np.searchsorted(below, self.percent / 100 * below[-1])]) if below[-1] else 0.0


Metrics = dict[str, Mean | Max | Percentile]
"""By their names in `metrics.jsonl`."""


def merge(a: Metrics, b: Metrics) -> Metrics:
    """The metrics of two micro-batches, or two updates, together."""
    return {name: metric.merge(b[name]) for name, metric in a.items()}


def compute(metrics: Metrics) -> dict[str, float]:
    """The final number of each metric, on the host."""
    return {name: metric.compute() for name, metric in jax.device_get(metrics).items()}
