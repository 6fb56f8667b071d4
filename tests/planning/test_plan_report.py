"""What a plan makes of the programs of an update."""

import jax
import jax.numpy as jnp
import pytest

from spct_jax import config as config_lib
from spct_jax.planning import hlo, report
from spct_jax.planning.programs import Planned
from spct_jax.runtime import hardware
from spct_jax.training.micro_batches import Part


def test_programs_of_an_update_add_up_and_the_one_that_needs_most_counts(tmp_path):
    """One called three times, a larger one that other steps need, and a small one with most beside."""

    def product(size, times, beside):
        shape = jax.ShapeDtypeStruct((size, size), jnp.float32)
        return Part(jax.jit(jnp.dot).lower(shape, shape), times, beside)

    chip, parts = hardware.CHIPS["v5e"], [product(32, 3, 0), product(64, 0, 10), product(16, 1, 40_000)]
    planned = Planned(lambda: parts, 3 * 2 * 32**3 + 2 * 16**3, 1, beside=1_000)
    found = report.measure(planned, "v5e:1x1", [None], chip, tmp_path)
    assert found["flops"] == found["flops_by_hand"] and found["fits"]
    assert found["bytes"] == pytest.approx(3 * 3 * 4 * 32**2 + 3 * 4 * 16**2)
    assert found["peak"] + found["beside"] == max(3 * 4 * 64**2 + 1_010, 3 * 4 * 16**2 + 41_000)
    assert len([*tmp_path.iterdir()]) == 3
    assert report.measure(planned, "v5e:1x1", [None], chip, tmp_path) == found


def test_estimates_are_in_seconds_with_pallas_kernels_at_the_peak_and_the_largest_first():
    chip = hardware.CHIPS["v5e"]
    cost = hlo.Cost(copied=0.81e9, kernels={"small": (2, 1.5e6), "large": (8, 6e6)})
    estimate = report._estimate(cost, 197e9, chip)
    assert estimate["seconds"] == pytest.approx(6e-3) and estimate["copies"] == pytest.approx(1e-3)
    assert estimate["pallas"] == pytest.approx(1e-3) and estimate["kernels"] == 10
    found = [(kernel["name"], kernel["count"], round(kernel["seconds"], 6)) for kernel in estimate["largest"]]
    assert found == [("large", 8, 4e-3), ("small", 2, 1e-3), (report.PALLAS, 0, 1e-3)]


def test_a_step_takes_the_bound_or_the_estimate_whichever_is_longer():
    config = config_lib.paper(config_lib.tiny().model)
    names = ("reshard", "prefill", "decode", "reference", "grpo", "sft", "meta_rm")
    one_part = config.rl.batch_size * (config.data.max_prompt - 1)
    result = {"lower_bound": 1.0, "tokens": one_part, "estimate": {"seconds": 0.5}}
    results = {name: dict(result) for name in names}
    results["decode"] = result | {"estimate": {"seconds": 3.0}, "tokens": 64}  # 128 prompts x 4 in 64 slots: 8 waves
    step, drawn = report.step(config, results), 8 * config.data.max_completion
    assert step["rollout_seconds"] == 2 + drawn and step["estimated_rollout_seconds"] == 2 + 3 * drawn
    assert step["estimated_seconds"] - step["seconds"] == 2 * drawn
    assert report.step(config, results | {"grpo": {"fits": False}}) == {}
