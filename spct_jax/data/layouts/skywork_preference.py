"""Skywork-Reward-Preference-80K: two whole conversations that differ in the last turn."""

from collections.abc import Iterator

from spct_jax.data.comparison import Comparison
from spct_jax.data.layouts.base import Layout, Row, pair, split_answers


def _comparisons(row: Row, id: str) -> Iterator[Comparison]:
    yield pair(*split_answers(row.get("chosen"), row.get("rejected")), id)


LAYOUT = Layout(
    name="skywork_preference",
    row='{"chosen", "rejected": [{"role", "content"}], "source"?}',
    ties="there are none",
    licence="that of each part, named in `source`; version 0.1 holds 4,957 pairs close to RewardBench's prompts, so take 0.2",
    columns=("chosen", "rejected"),
    comparisons=_comparisons,
)
