"""Fixtures of the judge's tests."""

import pytest


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out.jsonl"
