"""Layouts: one file each, which says what a row of a public data set is and what becomes of it."""

from spct_jax.data.layouts import (
    alpaca,
    comparison,
    demonstration,
    finegrained_rlhf,
    gsm8k,
    gsm8k_solutions,
    helpsteer2,
    hh_rlhf,
    llama_factory,
    llmbar,
    math_pairs,
    offsetbias,
    pairs,
    pandalm,
    prometheus,
    rewardbench,
    sharegpt,
    skywork_preference,
    ultrafeedback,
)
from spct_jax.data.layouts.base import Layout, LeftOut

_MODULES = (
    comparison, demonstration, pairs,
    hh_rlhf, ultrafeedback, helpsteer2, skywork_preference, offsetbias, llmbar, pandalm, math_pairs, gsm8k_solutions,
    finegrained_rlhf, rewardbench, prometheus,
    gsm8k, alpaca, sharegpt, llama_factory,
)  # fmt: skip

LAYOUTS: dict[str, Layout] = {module.LAYOUT.name: module.LAYOUT for module in _MODULES}
"""All of them by name."""

__all__ = ["LAYOUTS", "Layout", "LeftOut"]
