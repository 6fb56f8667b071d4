"""The published sizes."""

import subprocess
import sys

import pytest

from spct_jax.errors import InputError
from spct_jax.models import sizes

PARAMETERS = {  # billions, text part
    "gemma2_2b": 2.614,
    "gemma2_9b": 9.242,
    "gemma2_27b": 27.227,
    "gemma3_270m": 0.268,
    "gemma3_1b": 1.000,
    "gemma3_4b": 3.880,
    "gemma3_12b": 11.766,
    "gemma3_27b": 27.009,
}


def count(c):
    attention = 2 * c.width * c.head_dim * (c.num_heads + c.num_kv_heads) + 2 * c.head_dim * c.qk_norm
    layer = attention + 3 * c.width * c.ffw_width + 4 * c.width
    return c.vocab_size * c.width + c.num_layers * layer + c.width


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_sizes_have_the_published_number_of_parameters(name):
    assert count(sizes.get(name)) / 1e9 == pytest.approx(PARAMETERS[name], abs=6e-4)


def test_query_scales_of_the_two_27b_models_come_from_width_per_head():
    assert sizes.get("gemma2_27b").query_scale == pytest.approx((4608 / 32) ** -0.5)
    assert sizes.get("gemma3_27b").query_scale == pytest.approx((5376 / 32) ** -0.5)


def test_unknown_size_lists_the_known_ones():
    with pytest.raises(InputError, match="gemma2_9b"):
        sizes.get("gemma4")


def test_module_source_imports_no_jax():
    code = f"import ast; t = ast.parse(open({sizes.__file__!r}).read()); print(ast.dump(t))"
    tree = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "'jax'" not in tree and "'flax'" not in tree
