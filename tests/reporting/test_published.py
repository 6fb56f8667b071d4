"""The published figures were copied right: averages are those of their parts, but for the contradictions that notes name."""

import numpy as np
import pytest

from spct_jax.reporting import published
from spct_jax.reporting.published import PUBLISHED

SWAPPED = {"DeepSeek-BTRM-27B", "DeepSeek-PairRM-27B"}
"""Rows of RewardBench whose printed averages stand in each other's place, as a note says."""


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_rows_have_the_columns(name):
    one = PUBLISHED[name]
    assert len(one.places) == len(one.columns) and one.notes
    assert all(len(row) == len(one.columns) for row in one.rows.values())
    assert all(value is None or 0 <= value <= 100 for row in one.rows.values() for value in row)


@pytest.mark.parametrize("name", ["rewardbench", "ppe_correctness", "rmb"])
def test_averages_of_the_paper(name):
    for model, (*parts, average) in PUBLISHED[name].rows.items():
        if None not in parts and not (name == "rewardbench" and model in SWAPPED):
            assert average == pytest.approx(np.mean(parts), abs=0.11), model


def test_overall_figures_of_the_paper():
    for table in (published._TABLE_2, published._TABLE_3):
        for model, (*parts, overall) in table.items():
            assert overall == pytest.approx(np.mean(parts), abs=0.11), model
