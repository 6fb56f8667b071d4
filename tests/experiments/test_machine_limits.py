"""The bound of `experiments/studies/machine_limits.py`, against counts made by hand."""

import dataclasses

import pytest
import study_modules

from spct_jax.models import sizes

# Projections of a layer: 4 x 2 to each of q and o (1 head of 2), the same to k and v, 3 x 4 x 5 of the feed-forward part.
CONFIG = dataclasses.replace(
    sizes.toy(10),
    num_layers=2,
    pattern=("local", "global"),
    width=4,
    num_heads=1,
    num_kv_heads=1,
    head_dim=2,
    ffw_width=5,
    window=2,
)
LAYER, KEYS = 4 * 4 * 2 + 3 * 4 * 5, 2 * 4 * 2


@pytest.fixture(scope="module")
def limits():
    with study_modules.imported("machine_limits") as (module,):
        yield module


def test_prefill_by_hand(limits):
    """Two trunks of 3 tokens; the local layer's queries see 1, 2 and 2 keys, of the last one only keys count."""
    work = limits.prefill_work(CONFIG, 3, 2)
    scores = 2 * (1 + 2 + 2)
    assert work.rows == 8
    assert work.flops == 2 * 6 * (LAYER + KEYS) + 4 * 2 * scores
    # Kept: 2 tokens in the local layer, 3 in the global one, keys and values of 2 numbers each, of 2 trunks.
    assert work.bytes == 4 * (LAYER + KEYS + 6 * 4 + 2 * (2 + 3) * 2 * 2)
    assert work.exp == scores and work.tanh == scores + 6 * 5


def test_a_step_of_decoding_by_hand(limits):
    """Four branches on two trunks of 3 tokens, each with one token read: 2 keys are seen in one layer, 5 in the other."""
    work = limits.decode_work(CONFIG, 3, 2, 4, 1)
    scores = 4 * (2 + 5)
    assert work.rows == 4
    assert work.flops == 2 * 4 * (2 * LAYER + 10 * 4) + 4 * 2 * scores
    # Both keys of the local layer are the branch's own; of the global layer's 5 three are the trunk's, read once per trunk.
    assert work.bytes == 4 * (2 * LAYER + 10 * 4 + (2 * 3 + 4 * (2 + 2)) * 2 * 2)
    assert work.exp == scores + 4 * 10 and work.tanh == scores + 4 * (5 * 2 + 10)


def test_the_slower_of_arithmetic_and_memory_counts_and_elementwise_work_is_added(limits):
    rates = {"matmul 1": 10.0, "matmul 8": 40.0, "bandwidth": 5.0, "tanh": 2.0, "exp": 4.0}
    products = limits.Work(rows=8, flops=400.0, bytes=10.0, tanh=6.0, exp=0.0)  # 10 s, not 2; 3 s
    weights = limits.Work(rows=1, flops=20.0, bytes=35.0, tanh=0.0, exp=8.0)  # 7 s, not 2; 2 s
    found = limits.bound([products, weights], rates)
    assert found == {"seconds": 22.0, "matmul": 10.0, "memory": 7.0, "tanh": 3.0, "exp": 2.0}
    assert limits.limit(found) == "matrix products 45%, bandwidth 32%, tanh 14%, exp 9%"
