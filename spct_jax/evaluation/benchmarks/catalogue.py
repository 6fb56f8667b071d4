"""Every benchmark by its name."""

from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks import (
    alpacaeval,
    auto_j,
    evalbiasbench,
    gsm8k_pairs,
    hhh,
    judgebench,
    llmbar,
    pandalm,
    ppe_correctness,
    ppe_preference,
    realmistake,
    rewardbench,
    rewardbench2,
    rewardmath,
    rm_bench,
    rmb,
)
from spct_jax.evaluation.benchmarks.base import Benchmark

_MODULES = (
    rewardbench,
    ppe_preference,
    ppe_correctness,
    rmb,
    realmistake,
    rewardbench2,
    judgebench,
    rm_bench,
    llmbar,
    rewardmath,
    pandalm,
    auto_j,
    gsm8k_pairs,
    evalbiasbench,
    hhh,
    alpacaeval,
)
BENCHMARKS = {module.BENCHMARK.name: module.BENCHMARK for module in _MODULES}
"""Those of the SPCT paper come first."""


def get(name: str) -> Benchmark:
    """The benchmark of a name; InputError listing them all where there is none."""
    if name not in BENCHMARKS:
        raise InputError(f"no benchmark named {name!r}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
