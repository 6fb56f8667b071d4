"""What counts as right, and the rule-based reward of online RL."""

import math
from collections.abc import Callable, Sequence

from spct_jax import python_files
from spct_jax.data.comparison import unique_argmax
from spct_jax.errors import InputError

Reward = Callable[[Sequence[float] | None, Sequence[float], str], float]
"""From a verdict's scores (None: not readable), the true scores and the completion's text to what it is worth in RL."""


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


def reward(scores: Sequence[float] | None, truth: Sequence[float], text: str = "") -> float:
    """+1 for a right verdict, -1 for a wrong or unreadable one: Eq. 11. Arguments as in `is_correct`; the text is not read."""
    return 1.0 if is_correct(scores, truth) else -1.0


def parts(named: str) -> tuple[str, str]:
    """(File, function) of a reward that is named `FILE.py:FUNCTION`; InputError if it is not."""
    path, _, name = named.rpartition(":")
    if not path or not name.isidentifier():
        raise InputError(f"--config.rl.reward={named}: expected FILE.py:FUNCTION")
    return path, name


def load(named: str) -> Reward:
    """The reward that `FILE.py:FUNCTION` names, or that of Eq. 11 where nothing is named.

    It is tried on a verdict that cannot be read, a right one and a wrong one, so that a slip in it shows before a run begins.

    Raises:
      InputError: there is no such file or function. The reward itself raises it where the function fails, and names the line,
        or where it returns something else than a finite number.
    """
    if not named:
        return reward
    path, name = parts(named)
    function = getattr(python_files.load(path, "reward_file"), name, None)
    if not callable(function):
        raise InputError(f"--config.rl.reward={named}: {path} has no function {name}")

    def checked(scores, truth, text):
        with python_files.blamed(path):
            given = function(scores, truth, text)
        try:
            number = float(given)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{path}: {name} returned {given!r} for scores {scores}, true scores {truth}; a number is needed")
        return number

    for scores, text in ((None, ""), ((2, 1), "\\boxed{2, 1}"), ((1, 2), "\\boxed{1, 2}")):
        checked(scores, (1.0, 0.0), text)
    return checked
