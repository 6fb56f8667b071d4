"""`experiments/studies/shared_prompts.py`: what is computed of a comparison's prompts, by hand."""

import importlib
import pathlib

import numpy as np
import pytest

from spct_jax.models import flops, sizes

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments" / "studies"
CONFIG = sizes.toy(64)
PREAMBLE = 100


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module("shared_prompts")


def prompts(study, stem, own, orders=2):
    shown = [[5] * stem + [6 + order] * own for order in range(orders)]
    return study.Prompts(shown, stem)


def test_two_prompts_of_600_tokens_with_350_in_common(study):
    """The last token of a prompt is none of its trunk, and a shape counts it."""
    whole, once, tree = (study.computed(CONFIG, prompts(study, 350, 250), PREAMBLE, way) for way in study.WAYS)
    np.testing.assert_array_equal(whole, (2 * 599, 2 * 1023, flops.prefill(CONFIG, 2, 1023)))
    np.testing.assert_array_equal(once, (2 * 499, 2 * 511, flops.prefill(CONFIG, 2, 511, PREAMBLE)))
    operations = flops.prefill(CONFIG, 1, 256, PREAMBLE) + flops.prefill(CONFIG, 2, 256, PREAMBLE + 511)
    np.testing.assert_array_equal(tree, (250 + 2 * 249, 256 + 2 * 256, operations))


def test_what_is_hardly_in_common_is_computed_with_every_prompt(study):
    shown = prompts(study, PREAMBLE + 40, 450)
    once, tree = (study.computed(CONFIG, shown, PREAMBLE, way) for way in study.WAYS[1:])
    np.testing.assert_array_equal(once, tree)


def test_four_orders_share_one_stem(study):
    tokens, slots, _ = study.computed(CONFIG, prompts(study, 400, 300, orders=4), PREAMBLE, study.WAYS[-1])
    assert (tokens, slots) == (300 + 4 * 299, 384 + 4 * 384)
