"""Pairs of right and wrong solutions, from the published file."""

import pytest
from shared_data import shared

from spct_jax.data.jsonl import ReadReport
from spct_jax.evaluation.benchmarks import base, catalogue
from spct_jax.evaluation.recorded import Vote


def test_the_published_file():
    benchmark, report = catalogue.get("gsm8k_pairs"), ReadReport()
    items = benchmark.read(shared("data/gsm8k"), "fatal", report)
    assert report.read == 1319 and report.used == len(items) == 731
    assert sum(len(item.pairs) for item in items) == len(base.as_pairs(items)) == 2429
    assert all(item.label["scores"][i] > item.label["scores"][j] for item in items for i, j in item.pairs)
    assert items[0].reference.startswith("Janet sells 16 - 3 - 4") and items[0].comparison.reference is None
    block, prompts = benchmark.blocks([base.Answer(item, (Vote(tuple(item.label["scores"])),)) for item in items])
    assert block.columns["official"].mean() == prompts.columns["end_score"].mean() == 1
    assert prompts.columns["best_of_1"].mean() == pytest.approx(sum(sum(i.label["scores"]) for i in items) / 4 / 731)
