"""What each criterion is worth: weights that are fitted on training comparisons, and the judge that adds up all of them.

A weight is never negative. Where people prefer what does not meet a criterion, its opposite has the weight, if there is one.
This judge reads nothing but the criteria: its accuracy is about what a student of them (`human_demonstrator`) can reach.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize
from human_criteria import CRITERIA, KINDS, Criterion, kind_of, read_all

from spct_jax.data.comparison import Comparison

L2 = 0.03
"""Of the penalty; ten-fold cross-validation on the training comparisons gives 0.01 and 0.06 the same accuracy."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of criteria.

    Attributes:
        by_kind: for each of `human_criteria.KINDS`, those of the criteria that have one.
    """

    by_kind: Mapping[str, Mapping[Criterion, float]]

    @classmethod
    def fit(cls, train: Sequence[Comparison]) -> "Weights":
        """Logistic regression, by kind, on what the best response meets and another one does not; none for a kind unseen."""
        rows = collections.defaultdict(list)
        for c in train:
            met = _met(c)
            rows[kind_of(c)] += [met[c.best] - other for i, other in enumerate(met) if i != c.best]
        fitted = {kind: _regress(np.array(rows[kind])) if rows[kind] else np.zeros(len(CRITERIA)) for kind in KINDS}
        return cls({kind: {c: float(w) for c, w in zip(CRITERIA, found, strict=True) if w} for kind, found in fitted.items()})

    def of(self, comparison: Comparison) -> Mapping[Criterion, float]:
        """Those for a comparison of this kind."""
        return self.by_kind[kind_of(comparison)]

    def totals(self, comparisons: Sequence[Comparison]) -> list[tuple[float, ...]]:
        """Of each comparison, the summed weights of what each response meets."""
        found = []
        for c in comparisons:
            weights = self.of(c)
            met = _met(c) @ np.array([weights.get(criterion, 0.0) for criterion in CRITERIA])
            found.append(tuple(np.round(met, 9).tolist()))  # equal sums are ties whatever their order
        return found


def _met(comparison: Comparison) -> np.ndarray:
    """Float[n C]: which response meets which criterion; none meets what makes no sense here."""
    readings = read_all(comparison)
    nothing = [(False, "")] * comparison.n
    return np.array([[yes for yes, _ in readings.get(c, nothing)] for c in CRITERIA], float).T


def _regress(x: np.ndarray) -> np.ndarray:
    """Float[C], none negative, that minimises mean log(1 + exp(-x w)) + L2 |w|^2 / 2."""

    def loss(w):
        margins = x @ w
        wrong = np.exp(-np.logaddexp(0, margins))
        return np.logaddexp(0, -margins).mean() + L2 * (w @ w) / 2, L2 * w - x.T @ wrong / len(x)

    zero = np.zeros(x.shape[1])
    return scipy.optimize.minimize(loss, zero, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(zero)).x
