"""Small batches: few texts are scored here."""

import pytest

from spct_jax.reward_models import scalar


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(scalar, "BATCH_TOKENS", 512)
