"""Which draws rejective fine-tuning learns from."""

import pytest

from spct_jax.training import rejection


@pytest.mark.parametrize(
    ("unhinted", "hinted", "kept"),
    [
        ([1, 1, 1], [1], ([], [0])),
        ([1, 1, 1], [0], ([], [])),
        ([1, 0, 1], [1], ([0, 2], [0])),
        ([0, 0, 0], [1], ([], [0])),
        ([1, 1, 1], [], ([], [])),  # a single response has no hint
    ],
)
def test_a_hinted_draw_is_dropped_only_when_it_is_wrong(unhinted, hinted, kept):
    assert rejection.retain([*map(bool, unhinted)], [*map(bool, hinted)], drop_too_easy=True) == kept
