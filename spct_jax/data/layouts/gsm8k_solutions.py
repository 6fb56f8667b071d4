"""GSM8K's example solutions: four models' solutions of each problem, and whether each is right."""

from collections.abc import Iterator, Mapping

from spct_jax.data.comparison import Comparison
from spct_jax.data.layouts.base import Layout, LeftOut, Row, pair, text
from spct_jax.errors import InputError


def _comparisons(row: Row, id: str) -> Iterator[Comparison | LeftOut]:
    """Every right solution with every wrong one.

    The rule of SPCT's reward needs one best response, which a group of four has only if exactly one is right (290 of 1,319
    rows); the pairs use all 887 rows in which models disagree.
    """
    query, right, wrong = text(row, "question"), [], []
    for name, solution in row.items():
        if not isinstance(solution, Mapping):
            continue
        if not isinstance(solution.get("is_correct"), bool):
            raise InputError(f"is_correct of {name} is not true or false")
        (right if solution["is_correct"] else wrong).append(text(solution, "solution"))
    if not right or not wrong:
        yield LeftOut("all solutions are wrong" if wrong else "all solutions are right" if right else "no solutions")
    for i, (good, bad) in enumerate(((good, bad) for good in right for bad in wrong), 1):
        yield pair(query, good, bad, f"{id}.{i}")


LAYOUT = Layout(
    name="gsm8k_solutions",
    row='{"question", MODEL: {"solution", "is_correct"}, ..}; each right solution with each wrong one',
    ties="a problem that all models solve, or none, is left out",
    licence="MIT; the problems are GSM8K's test set",
    columns=("question",),
    comparisons=_comparisons,
)
