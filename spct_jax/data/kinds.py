"""What the records of a source must be: comparisons, comparisons with one best response, or demonstrations."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from spct_jax.data.comparison import Comparison
from spct_jax.data.layouts import LAYOUTS, Layout, LeftOut
from spct_jax.data.layouts.base import Row
from spct_jax.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What the rows of a source are made into.

    Attributes:
        name: what they are, in a word: the field of a `Layout` that makes them.
        own: the layout of the project's own files of them.
        check: raises InputError for a record that is well-formed but unusable.
    """

    name: str
    own: Layout
    check: Callable[[T], None] = lambda _: None

    def made_by(self, layout: Layout) -> Callable[[Row, str], Iterable[T | LeftOut]]:
        """The function of a layout that makes records of this kind; InputError if it has none."""
        make = getattr(layout, self.name)
        if make is None:
            other = "demonstrations" if self.name == "comparisons" else "comparisons"
            raise InputError(f"the layout {layout.name} has {other}, but {self.name} are needed")
        return make


def _check_decided(comparison: Comparison) -> None:
    if comparison.scores is None:
        raise InputError("no scores, so no best response")
    if comparison.best is None:
        raise InputError(f"no unique best response ({max(comparison.scores):g} is the top score of several)")
    if comparison.n == 1 and comparison.scores[0] not in (0, 1):
        raise InputError(f"score of a single response is not 0 or 1 ({comparison.scores[0]:g})")
    texts = [response.strip() for response in comparison.responses]  # as in the layouts; scalar models read no more of them
    same = [i for i, text in enumerate(texts, 1) if text == texts[comparison.best]]
    if len(same) > 1:
        raise InputError(f"the best response is the same text as another (numbers {same[0]} and {same[1]})")


COMPARISONS: Kind[Comparison] = Kind("comparisons", LAYOUTS["comparison"])
DECIDED: Kind[Comparison] = Kind("comparisons", LAYOUTS["comparison"], _check_decided)
"""With one best response each."""
DEMONSTRATIONS = Kind("demonstrations", LAYOUTS["demonstration"])
