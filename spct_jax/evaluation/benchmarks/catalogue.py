"""Every benchmark by its name."""

from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import llmbar
from spct_jax.evaluation.benchmarks.base import Benchmark

BENCHMARKS = {module.BENCHMARK.name: module.BENCHMARK for module in (llmbar,)}


def get(name: str) -> Benchmark:
    """The benchmark of a name; InputError listing them all where there is none."""
    if name not in BENCHMARKS:
        raise InputError(f"no benchmark named {name!r}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
