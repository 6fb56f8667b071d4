"""The architecture of a decoder as a configuration."""

import dataclasses

import pytest

from spct_jax.errors import InputError
from spct_jax.models import sizes


def test_layer_kinds_repeat_the_pattern_and_end_in_its_start():
    config = sizes.get("gemma3_1b")
    assert (config.repeats, config.remainder) == (4, ("local", "local"))
    assert config.layer_kinds == (("local",) * 5 + ("global",)) * 4 + ("local",) * 2
    assert len(config.layer_kinds) == config.num_layers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads=3 does not divide"),
        ({"head_dim": 15}, "head_dim must be even"),
        ({"width": 0}, r"model.width: 0 is not in \[1, 131072\]"),
        ({"pattern": ("sliding",)}, r"pattern\[0\]: 'sliding' is none of local, global"),
        ({"pattern": ()}, "pattern must be"),
        ({"dtype": "int8"}, "dtype: 'int8' is none of"),
        ({"attn_softcap": -1.0}, r"attn_softcap: -1.0 is not in \[0"),
        ({"rope_scale_global": 0.0}, r"rope_scale_global: 0.0 is not in \(0"),
    ],
)
def test_fields_that_make_no_sense_are_refused_by_name(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(sizes.toy(), **change)


def test_configurations_are_hashable_and_equal_by_value():
    assert hash(sizes.toy(100)) == hash(sizes.toy(100))
    assert sizes.toy(100) != sizes.toy(101)


def test_what_is_computed_again_is_one_of_three():
    with pytest.raises(InputError, match="model.remat: 'half' is none of none, full, dots"):
        dataclasses.replace(sizes.toy(), remat="half")
