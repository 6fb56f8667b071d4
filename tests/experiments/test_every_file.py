"""The study that trains on every public file: none is forgotten."""

import importlib
import pathlib

import pytest
from shared_data import shared

from spct_jax.data.layouts import LAYOUTS
from spct_jax.data.sources import parse_source

STUDIES = pathlib.Path(__file__).parents[2] / "experiments" / "studies"
NO_PREFERENCES = {"gpt-3.5-turbo-testset-v1.json", "pandalm-7b-testset-v1.json", "reference_statistics.json"}
"""Outputs of judges, and their figures."""


@pytest.fixture
def every_file(monkeypatch):
    monkeypatch.syspath_prepend(STUDIES)
    return importlib.import_module("every_file")


def test_every_file_is_trained_on(every_file):
    directory = shared("data")
    named = [path for source in every_file.FILES for path in parse_source(every_file.place(source, directory)).paths()]
    found = {path for path in directory.rglob("*.*") if path.is_file() and path.suffix in (".json", ".jsonl", ".gz")}
    assert {path.name for path in found - set(named)} == NO_PREFERENCES and set(named) <= found


def test_a_source_trains_what_its_layout_gives(every_file):
    for source, stages in every_file.FILES.items():
        layout = LAYOUTS[parse_source(source).layout]
        assert stages and ("sft" in stages) <= bool(layout.demonstrations)
        assert bool({"btrm", "rl"} & set(stages)) <= bool(layout.comparisons) and set(stages) <= set(every_file.LIMITS)
