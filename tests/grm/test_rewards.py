import pytest

from spct_jax.errors import InputError
from spct_jax.grm.rewards import is_correct, reward


@pytest.mark.parametrize(
    ("scores", "truth", "correct"),
    [
        ((8, 3), (1, 0), True),
        ((3, 8), (1, 0), False),
        ((8, 8), (1, 0), False),
        ((2, 9, 2, 1), (4, 10, 6, 8), True),
        ((2, 9, 9, 1), (4, 10, 6, 8), False),
        (None, (1, 0), False),
        ((1,), (1,), True),
        ((1,), (0,), False),
        ((0,), (0,), True),
        (None, (1,), False),
    ],
)
def test_eq_10_and_11(scores, truth, correct):
    assert is_correct(scores, truth) is correct
    assert reward(scores, list(truth)) == (1.0 if correct else -1.0)


def test_errors():
    with pytest.raises(InputError, match="no unique best response"):
        reward(None, (1, 1, 0))
    with pytest.raises(ValueError, match="3 scores for 2 responses"):
        reward((1, 2, 3), (0, 1))
