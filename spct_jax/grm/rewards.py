"""What counts as right, and the rule-based reward of online RL."""

from collections.abc import Sequence

from spct_jax.data.comparison import unique_argmax
from spct_jax.errors import InputError


def is_correct(scores: Sequence[float] | None, truth: Sequence[float]) -> bool:
    """Whether a verdict is right: Eq. 10.

    With several responses the truly best one must score strictly above every other; the order of the rest is free.
    A single response must get exactly its true score.

    Args:
      scores: n scores in input order, or None for a completion that did not parse, which is wrong.
      truth: n true scores in input order.

    Raises:
      InputError: when several responses share the best true score.
    """
    best = unique_argmax(tuple(truth))
    if best is None:
        raise InputError("no unique best response")
    if scores is None:
        return False
    if len(scores) != len(truth):
        raise ValueError(f"{len(scores)} scores for {len(truth)} responses")
    if len(truth) == 1:
        return scores[0] == truth[0]
    return unique_argmax(tuple(scores)) == best


def reward(scores: Sequence[float] | None, truth: Sequence[float]) -> float:
    """+1 for a right verdict, -1 for a wrong or unreadable one: Eq. 11. Arguments as in `is_correct`."""
    return 1.0 if is_correct(scores, truth) else -1.0
