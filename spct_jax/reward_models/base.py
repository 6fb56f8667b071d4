"""What every reward model does: a score for each response of a comparison."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from spct_jax.data.comparison import Comparison


@runtime_checkable
class Scored(Protocol):
    """What a reward model makes of one comparison; `judging.verdicts.Verdict` is one."""

    @property
    def id(self) -> str:
        """The comparison's."""

    @property
    def scores(self) -> tuple[float, ...] | None:
        """One per response, in input order, higher is better; None where the model could not say."""


@dataclasses.dataclass(frozen=True)
class Critiqued:
    """One draw of a critique of every response, and the scores that were made of them."""

    scores: tuple[float, ...] | None
    """None where a critique was cut."""
    texts: tuple[str, ...]
    """The critique of each response."""
    truncated: bool
    """Whether one of them was cut at the limit of tokens."""
    tokens: int
    """Length of all of them."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a scalar reward model makes of a comparison; a `Scored`."""

    id: str
    scores: tuple[float, ...] | None
    samples: tuple[Critiqued, ...] = ()
    """What they are the mean of, if the model draws critiques."""


@runtime_checkable
class RewardModel(Protocol):
    """A model that scores responses; `judging.judge.Judge` is one."""

    def score(self, comparisons: Sequence[Comparison]) -> Sequence[Scored]:
        """One result per comparison, in their order. The scores that people gave are not looked at.

        Raises:
          InputError: a comparison does not fit the model's context.
        """
