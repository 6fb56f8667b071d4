"""Mixtures: how they are written, and that their records are those of their sources."""

import numpy as np
import pytest

from spct_jax.data import draws, mixtures
from spct_jax.data.index import Records
from spct_jax.errors import InputError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("jsonl:a.jsonl", [(1.0, "jsonl:a.jsonl")]),
        ("jsonl:2*b + 3*c.jsonl", [(1.0, "jsonl:2*b + 3*c.jsonl")]),
        ("0.85*jsonl:a.jsonl + 0.15*hh_rlhf:/x/*.gz", [(0.85, "jsonl:a.jsonl"), (0.15, "hh_rlhf:/x/*.gz")]),
        ("1070*jsonl:c++ + d*.jsonl + .5*parquet:a + b", [(1070.0, "jsonl:c++ + d*.jsonl"), (0.5, "parquet:a + b")]),
        ("1e-3*toy:train", [(0.001, "toy:train")]),
    ],
)
def test_a_mixture_is_split_where_a_number_and_a_star_follow(text, parts):
    assert mixtures.parse(text) == parts
    changed = mixtures.replaced(text, lambda source: f"<{source}>")
    assert mixtures.parse(changed) == [(weight, f"<{source}>") for weight, source in parts]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0*jsonl:a", "weight 0 is not above 0"),
        ("1* + 2*jsonl:a", "no source after 1"),
        ("1*jsonl:a + 2*jsonl:a", "names jsonl:a twice"),
        ("1e400*jsonl:a", "weight 1e400 is not above 0 and below"),
        (" + ".join(["1*toy:train"] * 256), "mixture of 256 sources"),
    ],
)
def test_what_is_no_mixture_is_named(text, message):
    with pytest.raises(InputError, match=message):
        mixtures.parse(text)
    with pytest.raises(InputError, match=message):
        mixtures.replaced(text, str)


def test_the_records_of_a_mixture_are_those_of_its_sources():
    names = [Records(lambda i, k=k: f"{k}{i}", [4, 1, 3], stamp=k, where=lambda i, k=k: f"{k}.jsonl:{i}") for k in "abc"]
    mixed = mixtures.mix([(1, names[0]), (2, names[1][:2]), (3, names[2])])
    assert list(mixed) == ["a4", "a1", "a3", "b4", "b1", "c4", "c1", "c3"] and mixed.stamp == "a + b + c"
    chosen = mixed[np.array([6, 0, 4])]
    assert list(chosen) == ["c1", "a4", "b1"] and chosen.where(2) == "b.jsonl:1"
    assert chosen.shares.sources.tolist() == [2, 0, 1] and chosen.shares.weights == (1, 2, 3)
    drawn = [chosen[i] for i in draws.order(0, "x", 3, 0, draws.BLOCK, chosen.shares)]
    assert [drawn.count(name) for name in ("a4", "b1", "c1")] == [1667, 3333, 5000]
