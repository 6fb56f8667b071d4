"""Which programs are planned for an update, and how often each is counted."""

import jax
import pytest

from spct_jax import checkpoints, sharding
from spct_jax import config as config_lib
from spct_jax.models import flops
from spct_jax.planning import programs
from spct_jax.sampling.engine_params import decode_model


def test_an_update_in_micro_batches_is_planned_as_the_programs_that_a_step_calls():
    """Each micro-batch at the limits; for a smaller bucket there is memory only. Two moments lie beside a micro-batch."""
    config = config_lib.tiny()
    config.rl.accumulate = config.meta_rm.accumulate = 4
    config.data.buckets = ((60, 40),)
    planned = programs.programs(config, jax.devices()[:1])
    parts = list(planned["grpo"].lower())
    assert [part.times for part in parts] == [1, 4, 0, 1]  # zeros, the limits, the bucket, the optimiser's step
    params = 4 * sum(x.size for x in jax.tree.leaves(checkpoints.abstract_params(config.model)))
    assert parts[1].beside == parts[2].beside == pytest.approx(2 * params, rel=1e-4) and parts[3].beside == 0
    assert [part.times for part in planned["reference"].lower()] == [4, 0]
    assert [part.times for part in planned["meta_rm"].lower()] == [1, 4, 0, 1]
    config.rl.accumulate = 1
    assert [part.times for part in programs.programs(config, jax.devices()[:1])["grpo"].lower()] == [1, 0]


def test_a_preamble_is_planned_as_programs_of_its_own():
    """Before the micro-batches its trunk, and after them its gradient; not where the template has next to none."""
    config = config_lib.tiny()
    config.rl.accumulate, config.data.buckets = 4, ((60, 40),)
    config.prompt.template = "default"
    planned = programs.programs(config, jax.devices()[:1])
    assert [part.times for part in planned["grpo"].lower()] == [1, 1, 4, 0, 1, 1]
    assert [part.times for part in planned["reference"].lower()] == [1, 4, 0]
    assert [part.times for part in planned["meta_rm"].lower()] == [1, 0]


def test_prefill_is_planned_as_an_engine_computes_prompts():
    """The preamble by itself, by each of two devices, and of each prompt what follows it; a prompt counts whole."""
    config = config_lib.tiny()
    config.prompt.template, config.data.max_prompt = "single", 801
    planned = programs.programs(config, jax.devices()[:2])
    before, rest = (planned[name] for name in ("preamble", "prefill"))
    preamble = before.tokens
    assert rest.note == f"behind a preamble of {preamble}" and rest.tokens % 800 == 0
    read = rest.tokens // 800
    model = decode_model(sharding.make_layout(devices=jax.devices()[:2]), config.model)[1]
    assert before.flops == 2 * flops.prefill(model, 1, preamble)
    assert rest.flops == flops.prefill(model, read, 800 - preamble, preamble)
    config.prompt.template = "short"
    planned = programs.programs(config, jax.devices()[:2])
    assert "preamble" not in planned and planned["prefill"].note == ""
