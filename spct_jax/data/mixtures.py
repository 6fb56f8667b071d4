"""Several sources as one: `0.85*SOURCE + 0.15*SOURCE`.

A text is a mixture if it begins with a number and a `*`, which no source does. It is split only at ` + ` before another number
and `*`, so that a `+` or `*` in the name of a file means what it says.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from spct_jax.data.draws import Shares
from spct_jax.data.index import Records
from spct_jax.errors import InputError

MOST = 255
_WEIGHT = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\*"


def parse(text: str) -> list[tuple[float, str]]:
    """(weight, source) of every source that a text names; one of weight 1 where it is no mixture.

    Raises:
        InputError: a weight is 0 or too large, a source is missing or named twice, or there are more than 255.
    """
    if not re.match(_WEIGHT, text):
        return [(1.0, text)]
    parts, terms = [], _terms(text)
    if len(terms) > MOST:
        raise InputError(f"a mixture of {len(terms)} sources; at most {MOST} can be mixed")
    for weight, source in terms:
        if not source:
            raise InputError(f"{text}: no source after {weight}*")
        if not 0 < float(weight) < 1e12:
            raise InputError(f"{text}: the weight {weight} is not above 0 and below 1e12")
        if source in {other for _, other in parts}:
            raise InputError(f"{text}: names {source} twice")
        parts.append((float(weight), source))
    return parts


def replaced(text: str, change: Callable[[str], str]) -> str:
    """The text with another in place of every source, and the weights as they were written; errors as of `parse`."""
    parse(text)
    if not re.match(_WEIGHT, text):
        return change(text)
    return " + ".join(f"{weight}*{change(source)}" for weight, source in _terms(text))


def _terms(text: str) -> list[tuple[str, str]]:
    terms = re.split(rf"\s\+\s(?={_WEIGHT})", text)
    ends = [re.match(_WEIGHT, term).end() for term in terms]
    return [(term[: end - 1], term[end:].strip()) for term, end in zip(terms, ends, strict=True)]


def mix(parts: Sequence[tuple[float, Records]]) -> Records:
    """The records of several sources, one source after the other, drawn in the proportion of their weights."""
    ends = np.cumsum([len(records) for _, records in parts])
    sources = np.repeat(np.arange(len(parts), dtype=np.uint8), [len(records) for _, records in parts])

    def find(number: int) -> tuple[Records, int]:
        source = int(sources[number])
        records = parts[source][1]
        return records, number - int(ends[source]) + len(records)

    def make(number: int):
        records, own = find(number)
        return records[own]

    def where(number: int) -> str:
        records, own = find(number)
        return records.where(own)

    stamp = " + ".join(records.stamp for _, records in parts)
    return Records(make, range(len(sources)), stamp, where, Shares(sources, tuple(weight for weight, _ in parts)))
