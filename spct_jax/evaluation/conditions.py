"""What the items of a benchmark are judged by besides their own texts: principles that are given, and reference answers."""

import dataclasses
from collections.abc import Mapping, Sequence

from spct_jax.errors import InputError
from spct_jax.evaluation.benchmarks.base import Item


def with_references(items: Sequence[Item], where: str) -> list[Item]:
    """The same, each with the reference answer that the benchmark's data holds shown to the judge.

    Raises:
        InputError: naming `where`, if the data holds none at all.
    """
    if not any(item.reference for item in items):
        raise InputError(f"{where}: the benchmark's data holds no reference answers")
    return [_under(item, reference=item.reference) for item in items]


def with_principles(items: Sequence[Item], principles: str | Mapping[str, str], where: str) -> list[Item]:
    """The same, to be judged by given principles: one text for all, or by their ids; an item without any keeps what it has.

    A pair may have those of the item that it is a pair of.

    Raises:
        InputError: naming `where`, if there are principles of none of the items.
    """

    def given(id: str) -> str | None:
        if isinstance(principles, str):
            return principles
        return principles.get(id, principles.get(id.rpartition("/")[0]))

    texts = [given(item.id) for item in items]
    if not any(texts):
        raise InputError(f"{where}: holds principles of none of the items")
    return [_under(item, principles=text) for item, text in zip(items, texts, strict=True)]


def _under(item: Item, **condition: str | None) -> Item:
    if item.comparison is None or None in condition.values():
        return item
    return dataclasses.replace(item, comparison=dataclasses.replace(item.comparison, **condition))
